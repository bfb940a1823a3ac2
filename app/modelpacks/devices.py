"""Device, dtype and determinism of the models, resolved from the settings.

Imports no models. Called before the engine starts.
"""

import os
from typing import Literal

import joblib
import torch

from app.modelpacks.pack import PackError

_UNKNOWN_DEVICE = "There is no such device. Set auto, cpu, cuda or cuda:n."


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:n` into a device; only `auto` may choose the CPU instead of a GPU.

    Raises:
        PackError: The machine does not have the device, or the name is invalid.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PackError(_UNKNOWN_DEVICE) from error
    if device.type not in ("cpu", "cuda"):
        raise PackError(_UNKNOWN_DEVICE)
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise PackError("The settings name a CUDA device that this machine does not have. Set auto or cpu.")
    return device


def resolve_dtype(name: Literal["auto", "float32", "float16", "bfloat16"], device: torch.device) -> torch.dtype:
    """Turn the setting into a dtype; `auto` is float16 on CUDA and float32 on the CPU.

    Raises:
        PackError: The name is none of these.
    """
    dtypes = {
        "auto": torch.float16 if device.type == "cuda" else torch.float32,
        "float32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }
    if name not in dtypes:
        raise PackError("There is no such dtype. Set auto, float32, float16 or bfloat16.")
    return dtypes[name]


def resolve_deterministic(wanted: bool | None, device: torch.device) -> bool:
    """Resolve whether results are batch-invariant: None means on the CPU only, where it costs no speed."""
    return device.type == "cpu" if wanted is None else wanted


def resolve_num_threads(wanted: int | None) -> int:
    """Resolve the CPU threads of a forward, >= 1: None means `OMP_NUM_THREADS`, else the cores this process may use.

    More threads than cores make a forward many times slower: torch's threads wait for each other in loops that keep a
    core from the thread that is waited for. Affinity and the quota of a container therefore count.

    Source:
        `joblib.cpu_count` (affinity, Linux cgroups).
    """
    if wanted is not None:
        return wanted
    said = (
        os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    )  # a list has one number for each level of nesting
    return int(said) if said.isdecimal() and int(said) > 0 else int(joblib.cpu_count())


def use_deterministic_kernels() -> None:
    """Disable GPU kernels whose results change from run to run; must be called before the first use of the GPU.

    Source:
        "Reproducibility" of PyTorch's documentation.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else torch warns at each matrix product
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling memory helps to find bugs, but writes all memory twice.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
