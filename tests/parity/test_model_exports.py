"""A model of the demo pack's ResNet18, exported by the service, names the classes that the pack's network gives.

The ONNX file is made in the child process and run by onnxruntime; the bundle by its `predict.py` in an isolated Python.
"""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from app.db.session import Database
from app.exporting.child import TIMEOUT_S
from app.modelpacks.loading import BackboneComponents, load_backbone
from app.modelpacks.pack import demo_pack_folder, read_pack
from app.services.inference.modules import NodeModules
from app.storage.layout import DataFolder
from app.training.probe import LinearProbe, predict
from testing.fake_models import FakeModels, describe
from testing.node import Node, make_settings, serve
from testing.trained_models import add_model
from testing.uploads import picture

pytestmark = pytest.mark.slow("traces a network in another process")

CLASSES = ["plain", 'a "quoted"\nثعلب', "third"]
NUM_PICTURES = 24
ISOLATED = (
    "import runpy, sys; sys.modules['app'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@pytest.fixture(scope="module")
def backbone() -> BackboneComponents:
    return load_backbone(read_pack(demo_pack_folder()), torch.device("cpu"))


@pytest.fixture(scope="module")
def pixels(backbone: BackboneComponents) -> torch.Tensor:
    files = [io.BytesIO(picture(seed, size=(150, 120))) for seed in range(NUM_PICTURES)]
    return torch.stack([backbone.preprocess(Image.open(file).convert("RGB")) for file in files])


@pytest.fixture(scope="module")
def expected(backbone: BackboneComponents, pixels: torch.Tensor) -> tuple[LinearProbe, np.ndarray]:
    """A head that tells the pictures apart, and its probabilities, (N, K)."""
    with torch.inference_mode():
        features = backbone.model(pixels).numpy()
    centred = features - features.mean(axis=0)
    weight = (centred[: len(CLASSES)] / (centred**2).sum(axis=1).mean() * 5).astype(np.float32)
    probe = LinearProbe(weight, -weight @ features.mean(axis=0))
    rows = predict(probe, features)
    assert len(set(rows.argmax(axis=1).tolist())) > 1
    return probe, rows


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path, backbone: BackboneComponents
) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    shutil.copyfile(sqlite_template, folder / "foxhound.db")
    models = FakeModels()
    models.backbone = describe("resnet18", sha256=backbone.weights_sha256)
    models.modules = NodeModules(lambda: read_pack(demo_pack_folder()), folder)
    with serve(make_settings(folder / "data", f"sqlite:///{folder / 'foxhound.db'}"), models) as served:
        yield served


@pytest.fixture(scope="module")
def model_id(node: Node, backbone: BackboneComponents, expected: tuple[LinearProbe, np.ndarray]) -> Iterator[str]:
    db = Database(node.settings.resolved_database_url)
    lineage = {"backbone": {"name": "resnet18", "preprocessing": backbone.preprocessing.to_json()}}
    yield add_model(
        db,
        DataFolder(node.settings.data_dir),
        CLASSES,
        name="shapes",
        probe=expected[0],
        backbone_sha256=backbone.weights_sha256,
        lineage=lineage,
        metric_tables={},
    )
    db.close()


def test_the_onnx_file_gives_the_networks_probabilities(
    node: Node, model_id: str, pixels: torch.Tensor, expected: tuple[LinearProbe, np.ndarray]
) -> None:
    # The child traces at a low priority: beside other tests that takes many times what it takes alone.
    answer = node.http.get(f"/models/{model_id}/export?format=onnx", timeout=2 * TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    session = onnxruntime.InferenceSession(answer.content, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == CLASSES
    assert json.loads(facts["preprocessing"])["crop"] == pixels.shape[-1]
    [rows] = session.run(None, {"pixels": pixels.numpy()})
    np.testing.assert_allclose(rows, expected[1], atol=1e-4)
    again = node.http.get(f"/models/{model_id}/export?format=onnx")
    assert again.headers["etag"] == answer.headers["etag"]
    assert again.elapsed.total_seconds() < answer.elapsed.total_seconds() / 2


def test_the_bundle_names_the_same_classes(
    node: Node, model_id: str, expected: tuple[LinearProbe, np.ndarray], tmp_path: Path
) -> None:
    answer = node.http.get(f"/models/{model_id}/export?format=bundle")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    for seed in range(NUM_PICTURES):
        (tmp_path / f"{seed}.png").write_bytes(picture(seed, size=(150, 120)))
    ran = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            ISOLATED,
            str(tmp_path / "predict.py"),
            *(f"{n}.png" for n in range(NUM_PICTURES)),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["label"] for line in lines] == [CLASSES[number] for number in expected[1].argmax(axis=1)]
    np.testing.assert_allclose([line["probability"] for line in lines], expected[1].max(axis=1), atol=1e-3)


def test_the_pretrained_classifier_of_the_pack_is_explained(node: Node) -> None:
    answer = node.http.post("/classify", files={"image": picture(1)}, data={"explain": "true"})
    assert answer.status_code == 200, answer.text
    drawn = Image.open(io.BytesIO(base64.b64decode(answer.json()["explanation_png_b64"])))
    assert drawn.size == (128, 128)


@pytest.mark.parametrize("name", ["resnet18", "clip", "photo"])
def test_every_nodes_backbones_are_plain_modules_with_an_origin(node: Node, name: str, tmp_path: Path) -> None:
    modules = NodeModules(lambda: read_pack(demo_pack_folder()), tmp_path)
    plain = modules.load(name)
    side = plain.preprocessing["crop"]
    image = Image.open(io.BytesIO(picture(3, size=(300, 200)))).convert("RGB")
    assert plain.pixels(image).shape == (3, side, side)
    assert not plain.module.training
    assert plain.is_unit == (name == "clip")
    assert (plain.head is not None) == (name == "photo")
    assert modules.origin(name).licence == "Apache-2.0"
