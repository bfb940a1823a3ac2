"""The drawings as the autoencoder's latents, computed once and kept beside the drawings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL

from demo_pack.build.drawings import load_set
from demo_pack.build.vae import load_vae
from demo_pack.build.workdir import load, log, save


@torch.inference_mode()
def encode_latents(workdir: Path, name: str) -> torch.Tensor:
    """Scaled mean latents of a drawn set, computed once. **Shapes**: (N, 4, H / 8, W / 8) float32."""
    path = workdir / f"latents-{name}.pt"
    if state := load(path):
        latents: torch.Tensor = state["latents"]
        return latents
    vae, drawings = load_vae(workdir).to(memory_format=torch.channels_last), load_set(workdir, name)
    chunks = np.array_split(np.arange(len(drawings.images)), -(-len(drawings.images) // 50))
    latents = torch.cat([_encode(vae, drawings.batch(chunk)) for chunk in chunks])
    save(path, {"latents": latents})
    log(workdir, "latents", set=name, latents=len(latents), std=round(float(latents.std()), 3))
    return latents


def _encode(vae: AutoencoderKL, pixels: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist
    latents: torch.Tensor = posterior.mean.float() * vae.config.scaling_factor
    return latents
