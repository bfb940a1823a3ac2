"""Backbones of timm against timm called directly, and `photo` on real photographs.

Tolerance: 1e-5 of the largest feature: BatchNorm is part of the convolutions, and sums come in another order. The
photographs are those of PyTorch's transfer-learning tutorial; what needs them is skipped where they are absent.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

from app.engine.kernels.cpu_efficientnet import CpuEfficientNet, optimize_efficientnet
from app.engine.request import EngineRequest
from app.engine.resnet import BackboneRunner, Classification, ClassifyPayload, FeaturePayload
from app.modelpacks.pack import PackError
from app.modelpacks.photo import ARCHITECTURE, ensure_photo
from app.modelpacks.preprocessing import Preprocessing
from app.modelpacks.timm_models import TimmComponents, load_timm_model, read_timm_model
from tests.parity.conftest import CPU

PHOTOGRAPHS = Path(__file__).parents[3] / "shared" / "data" / "ants-bees"
ANT, BEE = 310, 309
IMAGES = [
    Image.effect_mandelbrot((500, 333), (-2, -1.5, 1, 1.5), 40).convert("RGB"),
    Image.linear_gradient("L").convert("RGB").resize((200, 640)),
    Image.new("RGB", (1, 1), "orange"),
]

needs_photographs = pytest.mark.skipif(
    not PHOTOGRAPHS.is_dir(), reason="NOT TESTED: the photographs of ants and bees are not beside the project"
)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("backbones") / "photo"
    ensure_photo(folder)
    return folder


@pytest.fixture(scope="session")
def photo(photo_folder: Path) -> TimmComponents:
    return load_timm_model(read_timm_model("photo", photo_folder), CPU)


@pytest.fixture(scope="session")
def upstream(photo_folder: Path) -> torch.nn.Module:
    """The same weights in timm's own network."""
    model: torch.nn.Module = timm.create_model(ARCHITECTURE, pretrained=False).eval()
    model.load_state_dict(load_file(photo_folder / "model.safetensors"))
    return model


def run(parts: TimmComponents, payloads: list[object]) -> list[np.ndarray]:
    runner = BackboneRunner(model=parts.model, device=CPU, head=parts.head)
    requests = [EngineRequest("photo", payload) for payload in payloads]
    runner.step(requests)
    results = [runner.finish(request) for request in requests]
    return [result.probabilities if isinstance(result, Classification) else result for result in results]


def photographs(split: str) -> list[tuple[Path, int]]:
    labels = {"ants": ANT, "bees": BEE}
    return [(path, labels[path.parent.name]) for path in sorted((PHOTOGRAPHS / split).glob("*/*.jpg"))]


def test_pixels_are_those_of_timms_transform(photo: TimmComponents, upstream: torch.nn.Module) -> None:
    theirs = create_transform(**resolve_model_data_config(upstream))
    for image in IMAGES:
        assert torch.equal(photo.preprocess(image), theirs(image))


@torch.inference_mode()
def test_features_and_probabilities_are_timms(photo: TimmComponents, upstream: torch.nn.Module) -> None:
    pixels = [photo.preprocess(image) for image in IMAGES]
    batch = torch.stack(pixels)
    features = upstream.forward_head(upstream.forward_features(batch), pre_logits=True).numpy()  # type: ignore[operator]
    assert (
        np.abs(np.stack(run(photo, [FeaturePayload(one) for one in pixels])) - features).max() <= 1e-5 * features.max()
    )
    ours = np.stack(run(photo, [ClassifyPayload(one) for one in pixels]))
    np.testing.assert_allclose(ours, upstream(batch).softmax(dim=1).numpy(), rtol=0, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["tf_efficientnet_lite0", "efficientnet_b0", "mobilenetv2_050"])
@pytest.mark.parametrize("side", [224, 97])
def test_an_optimized_efficientnet_returns_what_timms_returns(architecture: str, side: int) -> None:
    model = random_model(architecture)
    optimized = optimize_efficientnet(model)
    assert isinstance(optimized, CpuEfficientNet)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    ours, theirs = optimized(images), model(images)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_another_network_is_not_replaced() -> None:
    model = random_model("test_resnet")
    assert optimize_efficientnet(model) is model


def test_batchnorm_buffers_do_not_change(photo: TimmComponents) -> None:
    before = {name: buffer.clone() for name, buffer in photo.model.named_buffers()}
    photo.model.train()
    run(photo, [FeaturePayload(photo.preprocess(image)) for image in IMAGES])
    assert before
    for name, buffer in photo.model.named_buffers():
        assert torch.equal(buffer, before[name]), name


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ["test_vit", "test_resnet", "test_convnext"])
def test_any_timm_model_in_a_folder_is_a_backbone(architecture: str, tmp_path: Path) -> None:
    model = random_model(architecture, num_classes=7)
    write_folder(tmp_path, architecture, model)
    found = read_timm_model("mine", tmp_path)
    parts = load_timm_model(found, CPU)
    config = resolve_model_data_config(model)
    theirs = create_transform(**config)
    pixels = torch.stack([theirs(image) for image in IMAGES])
    for image, expected in zip(IMAGES, pixels, strict=True):
        assert torch.equal(parts.preprocess(image), expected)
    features = model.forward_head(model.forward_features(pixels), pre_logits=True).numpy()  # type: ignore[operator]
    ours = np.stack(run(parts, [FeaturePayload(one) for one in pixels]))
    assert ours.shape == (3, parts.num_features) == (3, found.num_features)
    assert np.abs(ours - features).max() <= 1e-5 * np.abs(features).max()
    assert parts.head is not None
    np.testing.assert_allclose(parts.head(torch.from_numpy(ours)).numpy(), model(pixels).numpy(), rtol=0, atol=1e-4)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, "test_vit", random_model("test_resnet"))
    with pytest.raises(PackError, match="broken or of another architecture"):
        load_timm_model(read_timm_model("mine", tmp_path), CPU)


@pytest.mark.parametrize("crop_mode", ["squash", "border"])
def test_other_crop_modes_are_timms(crop_mode: str) -> None:
    config = {"input_size": (3, 64, 64), "crop_pct": 0.9, "crop_mode": crop_mode, "mean": [0.5] * 3, "std": [0.2] * 3}
    ours = Preprocessing.from_timm({**config, "interpolation": "bicubic"})
    theirs = create_transform(**{**config, "interpolation": "bicubic"})
    for image in IMAGES:
        assert torch.equal(ours.transform()(image), theirs(image))
    assert Preprocessing.from_config(json.loads(json.dumps(ours.to_json()))) == ours


@needs_photographs
def test_photo_names_ants_and_bees(photo: TimmComponents) -> None:
    """A wrong normalisation costs ten points of exact top-1 and does not show in a probe."""
    rows, labels = [], []
    for start in range(0, 160, 32):
        part = photographs("val")[start : start + 32]
        rows += run(photo, [ClassifyPayload(photo.preprocess(Image.open(path).convert("RGB"))) for path, _ in part])
        labels += [label for _, label in part]
    ranking = np.argsort(-np.stack(rows), axis=1)
    assert len(labels) == 153
    assert np.mean(ranking[:, 0] == labels) == pytest.approx(0.85, abs=0.01)
    assert np.mean([label in ranked[:5] for label, ranked in zip(labels, ranking, strict=True)]) >= 0.92


def random_model(architecture: str, **options: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: torch.nn.Module = timm.create_model(architecture, pretrained=False, **options).eval()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # statistics that a wrong mode would miss
                module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return model


def write_folder(folder: Path, architecture: str, model: torch.nn.Module) -> None:
    """Write a model as timm's hub has it."""
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    cfg = resolve_model_data_config(model)
    config = {
        "architecture": architecture,
        "num_classes": model.num_classes,
        "num_features": model.num_features,
        "pretrained_cfg": {**cfg, "tag": "r160_in1k"},
    }
    (folder / "config.json").write_text(json.dumps(config))
