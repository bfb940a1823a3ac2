"""The training pictures of CLIP and the classifier: drawings and their VAE reconstructions, slightly varied.

Never a generated picture: models trained on generated pictures could not measure the quality of generated pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from demo_pack.build.drawings import Drawings, load_set
from demo_pack.build.latents import encode_latents
from demo_pack.build.vae import load_vae
from demo_pack.build.workdir import TORCH_SEED, load, log, save

RECONSTRUCTED = 6000
RECONSTRUCTION_SHARE = 0.5
LATENT_NOISE = 0.3  # largest deviation of the noise on a reconstruction's latent (they have deviation 1)


@dataclass(frozen=True)
class Views:
    """The training drawings and the reconstructions of the first of them.

    **Shapes**: rebuilt (6000, H, W, 3) uint8.
    """

    drawings: Drawings
    rebuilt: torch.Tensor

    def batch(self, chosen: NDArray[np.int64], rng: np.random.Generator) -> torch.Tensor:
        """Varied pictures, half of those that have a reconstruction replaced by it.

        **Shapes**: chosen (B,), returns (B, 3, 128, 128) float32 from -1 to 1.
        """
        pixels = self.drawings.batch(chosen)
        for row, index in enumerate(chosen):
            if index < len(self.rebuilt) and rng.random() < RECONSTRUCTION_SHARE:
                pixels[row] = self.rebuilt[index].permute(2, 0, 1).float() / 127.5 - 1
        return torch.cat([jittered(part, rng) for part in pixels.chunk(4)])


def load_views(workdir: Path) -> Views:
    """The training set with its reconstructions, which the first call computes."""
    return Views(load_set(workdir, "train"), reconstructions(workdir))


@torch.inference_mode()
def reconstructions(workdir: Path) -> torch.Tensor:
    """The first training drawings, reconstructed by the VAE from slightly noisy latents.

    The noise makes the reconstructions resemble decoded imperfect latents. **Shapes**: (6000, 128, 128, 3) uint8.
    """
    path = workdir / "reconstructions.pt"
    if state := load(path):
        pixels: torch.Tensor = state["pixels"]
        return pixels
    vae = load_vae(workdir).to(memory_format=torch.channels_last)
    generator, parts = torch.Generator().manual_seed(TORCH_SEED), []
    for latents in torch.split(encode_latents(workdir, "train")[:RECONSTRUCTED], 50):
        strength = torch.rand(len(latents), 1, 1, 1, generator=generator) * LATENT_NOISE
        noisy = latents + strength * torch.randn(latents.shape, generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            decoded = vae.decode(noisy / vae.config.scaling_factor).sample
        parts.append(((decoded.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1))
    pixels = torch.cat(parts)
    save(path, {"pixels": pixels})
    log(workdir, "views", reconstructions=len(pixels))
    return pixels


def jittered(pixels: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Pictures mirrored or not, slightly zoomed and moved, slightly lighter or darker, sometimes soft."""
    if rng.random() < 0.5:
        pixels = pixels.flip(3)
    size = pixels.shape[2]
    inner = int(rng.integers(round(size * 0.84), size + 1))
    y, x = rng.integers(0, size - inner + 1, 2)
    cropped = pixels[:, :, y : y + inner, x : x + inner]
    if rng.random() < 0.25:
        cropped = F.interpolate(cropped, scale_factor=0.5, mode="bilinear", antialias=True)
    resized = F.interpolate(cropped, size=(size, size), mode="bilinear", antialias=True)
    gain, shift = rng.uniform(0.9, 1.1), rng.uniform(-0.07, 0.07)
    return (resized * gain + shift).clamp(-1, 1)
