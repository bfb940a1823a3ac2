"""Copies of the demo pack's diffusion model as folders, each with other weights in its UNet. Draws nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from app.modelpacks.pack import demo_pack_folder

# Of each weight's standard deviation: images differ from the pack's, and still have shapes.
NOISE = 0.05


def write_models(folder: Path, number: int) -> dict[str, Path]:
    """Write so many models and return their folders by their names."""
    source = demo_pack_folder() / "diffusion"
    found = {}
    for index in range(number):
        name = f"demo-{index + 1}"
        shutil.copytree(source, folder / name)
        [weights] = (folder / name / "unet").glob("*.safetensors")
        generator = torch.Generator().manual_seed(index + 1)
        save_file({key: _shaken(value, generator) for key, value in load_file(weights).items()}, weights)
        found[name] = folder / name
    return found


def _shaken(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    if values.numel() < 2:
        return values
    noise = torch.randn(values.shape, generator=generator) * values.float().std() * NOISE
    return (values.float() + noise).to(values.dtype)
