"""Exports of a head on three backbones, run without this project's code, name the same class on 200 pictures.

The backbones are those of the preset `from_prompts`: ResNet18 and CLIP's image tower of the demo pack, and
EfficientNet-Lite0 with ImageNet weights. What is expected comes from the rows as the node combines them for
`/classify`.
"""

import json
import math
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from app.exporting.bundle import export_bundle
from app.exporting.child import export_onnx
from app.exporting.classifier import Classifier, ModelFacts, Network, Part
from app.exporting.errors import ParityFailed
from app.exporting.networks import SideBySide, features_of, side_by_side
from app.exporting.parity import Parity
from app.exporting.tensors import write_safetensors
from app.modelpacks.pack import demo_pack_folder, read_pack
from app.node.combined import combine_rows
from app.services.inference.modules import NodeModules, PlainModule
from app.training.probe import LinearProbe, predict

pytestmark = pytest.mark.generator

NUM_PICTURES = 200
NAMES = ("resnet18", "photo", "clip")
CLASSES = ("red", "green", "blue", 'a "quoted"\nثعلب')

# Runs predict.py where an import of this project fails.
ISOLATED = (
    "import runpy, sys; sys.modules['app'] = None; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)


@dataclass(frozen=True)
class Exported:
    """A classifier, its files, and its probabilities (200, K) of the pictures."""

    classifier: Classifier
    pictures: list[Path]
    expected: np.ndarray
    folder: Path
    parity: Parity

    @property
    def classes(self) -> list[str]:
        return [CLASSES[number] for number in self.expected.argmax(axis=1)]


def draw_pictures(folder: Path) -> list[Path]:
    """Soft fields of colours with noise, of several sizes and both orientations; the hue follows the index modulo 4."""
    rng = np.random.default_rng(7)
    paths = []
    for number in range(NUM_PICTURES):
        width, height = (int(side) for side in rng.integers(150, 330, 2))
        field = rng.integers(0, 120, (6, 6, 3))
        field[:, :, number % 4 % 3] += 110 if number % 4 < 3 else 0
        picture = Image.fromarray(field.astype(np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
        noisy = np.asarray(picture, np.int16) + rng.integers(-20, 20, (height, width, 3))
        paths.append(folder / f"{number}.png")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


def fit_centroids(features: np.ndarray, labels: np.ndarray) -> LinearProbe:
    """A head that names the nearest centroid, sharp enough that its probabilities are spread."""
    centroids = np.stack([features[labels == label].mean(axis=0) for label in range(len(CLASSES))])
    sharpness = 10 / features.var(axis=0).sum()
    bias = -(centroids**2).sum(axis=1) / 2
    return LinearProbe((centroids * sharpness).astype(np.float32), (bias * sharpness).astype(np.float32))


def rows_of(plain: PlainModule, pixels: torch.Tensor) -> np.ndarray:
    """Features as the node gives them to heads."""
    with torch.inference_mode():
        rows = torch.cat([features_of(plain.module, batch) for batch in pixels.split(20)])
        return (functional.normalize(rows, dim=1) if plain.is_unit else rows).numpy()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("combined")
    pictures = draw_pictures(tmp_path_factory.mktemp("pictures"))
    modules = NodeModules(lambda: read_pack(demo_pack_folder()), tmp_path_factory.mktemp("models"))
    plains = {name: modules.load(name) for name in NAMES}
    images = [Image.open(path).convert("RGB") for path in pictures]
    pixels = [torch.stack([plain.pixels(image) for image in images]) for plain in plains.values()]
    rows = combine_rows([rows_of(plain, given) for plain, given in zip(plains.values(), pixels, strict=True)])
    probe = fit_centroids(rows[::3], np.arange(NUM_PICTURES)[::3] % len(CLASSES))
    parts = tuple(
        Part(name, plain.network, plain.preprocessing, modules.origin(name)) for name, plain in plains.items()
    )
    facts = ModelFacts(
        name="colours",
        network=Network("combined", " + ".join(NAMES)),
        preprocessing={part.name: part.preprocessing for part in parts},
        classes=CLASSES,
        num_features=rows.shape[1],
        normalise=False,
        origin=parts[0].origin,
        parts=parts,
    )
    classifier = Classifier(facts, side_by_side([one.module for one in plains.values()]), probe.weight, probe.bias)
    parity = export_onnx(classifier, folder / "model.onnx", pixels=[one[:40].numpy() for one in pixels])
    write_safetensors(classifier, folder / "model.safetensors")
    export_bundle(classifier, folder / "bundle.zip")
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        archive.extractall(folder / "bundle")
    expected = predict(probe, rows)
    assert len(set(expected.argmax(axis=1).tolist())) == len(CLASSES)
    return Exported(classifier, pictures, expected, folder, parity)


def pixels_by_hand(path: Path, settings: dict[str, Any]) -> np.ndarray:
    """Resize the shorter side, cut out the middle, normalise; as the metadata says."""
    picture = Image.open(path).convert("RGB")
    resize, crop = settings["resize"], settings["crop"]
    size = tuple(int(resize * side / min(picture.size)) for side in picture.size)
    picture = picture.resize(size, Image.Resampling[settings["interpolation"].upper()])  # type: ignore[arg-type]
    half = math.floor if settings["library"] == "transformers" else round  # of an odd margin
    left, top = (half((side - crop) / 2) for side in size)
    values = np.asarray(picture, np.float32)[top : top + crop, left : left + crop] / 255
    normalised = (values - np.array(settings["mean"])) / np.array(settings["std"])
    return normalised.transpose(2, 0, 1).astype(np.float32)


def test_onnxruntime_names_the_same_classes(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.folder / "model.onnx", providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    labels, backbones = json.loads(facts["labels"]), json.loads(facts["backbones"])
    assert [one.name for one in session.get_inputs()] == [f"pixels.{name}" for name in NAMES]
    inputs = {
        part["input"]: np.stack([pixels_by_hand(path, part["preprocessing"]) for path in exported.pictures])
        for part in backbones
    }
    batches = [slice(start, start + 25) for start in range(0, NUM_PICTURES, 25)]
    rows = np.concatenate([session.run(None, {key: one[batch] for key, one in inputs.items()})[0] for batch in batches])
    assert [labels[number] for number in rows.argmax(axis=1)] == exported.classes
    np.testing.assert_allclose(rows, exported.expected, atol=1e-3)


def test_the_bundle_names_the_same_classes(exported: Exported, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", ISOLATED, str(exported.folder / "bundle" / "predict.py")]
    ran = subprocess.run(
        [*command, *map(str, exported.pictures)],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["label"] for line in lines] == exported.classes
    np.testing.assert_allclose([line["probability"] for line in lines], exported.expected.max(axis=1), atol=1e-3)


def build(architecture: dict[str, Any]) -> nn.Module:
    if architecture["library"] == "timm":
        model: nn.Module = timm.create_model(architecture["name"], num_classes=0, **architecture["options"])
    elif architecture["library"] == "torchvision":
        model = torchvision.models.get_model(architecture["name"], weights=None)
        model.fc = nn.Identity()
    else:
        model = CLIPVisionModelWithProjection(CLIPVisionConfig(**architecture["options"]))
    return model.eval()


def test_the_libraries_alone_name_the_same_classes_by_the_safetensors_file(exported: Exported) -> None:
    path = exported.folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["classifier"])
    tensors, columns = load_file(path), []
    for part in facts["backbones"]:
        model, prefix = build(part["architecture"]), part["tensors"]
        assert prefix == f"backbones.{part['name']}."
        model.load_state_dict(
            {key.removeprefix(prefix): tensors.pop(key) for key in set(tensors) if key.startswith(prefix)}
        )
        pixels = torch.from_numpy(np.stack([pixels_by_hand(one, part["preprocessing"]) for one in exported.pictures]))
        with torch.inference_mode():
            outputs = [model(batch) for batch in pixels.split(20)]
        columns.append(functional.normalize(torch.cat([getattr(out, "image_embeds", out) for out in outputs]), dim=1))
    assert set(tensors) == {"head.weight", "head.bias"}
    logits = functional.linear(torch.cat(columns, dim=1), tensors["head.weight"], tensors["head.bias"])
    assert [facts["labels"][number] for number in logits.argmax(dim=1)] == exported.classes
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), exported.expected, atol=1e-3)


def test_parity_was_measured_on_the_pictures_given(exported: Exported) -> None:
    assert exported.parity.num_pictures == 40
    assert exported.parity.max_difference < 1e-4
    assert exported.parity.num_other_classes == 0


def test_the_graph_has_no_traces_of_this_machine(exported: Exported) -> None:
    graph = onnx.load(exported.folder / "model.onnx")
    assert {one.type.tensor_type.shape.dim[0].dim_param for one in graph.graph.input} == {"N"}
    graph.graph.ClearField("initializer")
    text = str(graph)
    assert not [word for word in ("site-packages", ".py", str(Path.home()), "stack_trace") if word in text]


@pytest.mark.parametrize(
    ("write", "name"),
    [(export_onnx, "model.onnx"), (write_safetensors, "model.safetensors"), (export_bundle, "bundle.zip")],
)
def test_equal_classifiers_give_equal_files(
    exported: Exported, tmp_path: Path, write: Callable[[Classifier, Path], object], name: str
) -> None:
    write(exported.classifier, tmp_path / name)
    assert (tmp_path / name).read_bytes() == (exported.folder / name).read_bytes()


def test_backbones_in_another_order_are_refused(exported: Exported, tmp_path: Path) -> None:
    """The head's columns would meet the features of other backbones."""
    parts = exported.classifier.facts.parts

    class Reversed(SideBySide):
        def forward(self, *pixels: torch.Tensor) -> torch.Tensor:
            rows = super().forward(*pixels)
            return rows.flip(dims=[1])

    backbone = Reversed(list(exported.classifier.backbone.parts)).eval()  # type: ignore[arg-type]
    wrong = replace(exported.classifier, backbone=backbone)
    assert len(parts) == len(NAMES)
    with pytest.raises(ParityFailed):
        export_onnx(wrong, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()
