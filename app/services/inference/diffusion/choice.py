"""How the diffusion models of a node are loaded; plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from app.services.inference.loaded import Runtime


@dataclass(frozen=True, slots=True)
class DiffusionChoice:
    """How diffusion models are loaded, and which there are beside the default one.

    Attributes:
        models_dir: Where the calibration is stored.
        loras_dir: The folder of adapters; None: there are none.
        deterministic: Whether an image's bytes never depend on the rest of its batch.
        gpu_graphs: Whether a GPU records the denoising forwards.
        gpu_compile: Whether a GPU's UNet and VAE are compiled; those of the default model alone.
        models: Folders and files of further models, by name.
        models_bytes: Of their weights in memory, together.
    """

    device: torch.device
    dtype: torch.dtype
    runtime: Runtime
    models_dir: Path
    loras_dir: Path | None
    deterministic: bool
    gpu_graphs: bool
    gpu_compile: bool
    models: Mapping[str, Path] = field(default_factory=dict)
    models_bytes: int = 5_000_000_000
