"""Which device and number format the models use, and with which promise, from the words of the settings."""

import os
from typing import Literal

import torch

from app.modelpacks.pack import PackError


def resolve_device(name: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:n` into a device; only `auto` may choose the CPU instead of a GPU.

    Raises:
        PackError: The device asked for is not there, or the name is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise PackError("There is no such device; say auto, cpu, cuda or cuda:n.") from error
    if device.type not in ("cpu", "cuda"):
        raise PackError("There is no such device; say auto, cpu, cuda or cuda:n.")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise PackError("The settings ask for a CUDA device that this machine does not have; say auto or cpu.")
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
        raise PackError("There is no such dtype; say auto, float32, float16 or bfloat16.")
    return dtypes[name]


def resolve_deterministic(wanted: bool | None, device: torch.device) -> bool:
    """Turn the setting into a promise: that bytes do not depend on company costs nothing on the CPU alone."""
    return device.type == "cpu" if wanted is None else wanted


def use_deterministic_kernels() -> None:
    """Let this process's GPU take no kernel whose result changes from run to run; before the first use of the GPU.

    Source:
        "Reproducibility" of PyTorch's documentation.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it torch warns at each matrix product
    torch.use_deterministic_algorithms(True, warn_only=True)
    # What this fills finds bugs, at the price of writing memory twice.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
