"""Stage `decoder`: trains the autoencoder's decoder further; its encoder, and so the UNet's latents, stay fixed.

The decoder alone determines the sharpness of a picture once the encoder is fixed, and a step costs little more than
half. It is trained on slightly noisy latents too, because sampled latents are never perfect.
"""

from __future__ import annotations

from pathlib import Path

import torch

from demo_pack.build.drawings import load_set
from demo_pack.build.latents import encode_latents
from demo_pack.build.loop import Moment, Recipe, train
from demo_pack.build.vae import Decoder, load_vae, measure_psnr, reconstruction_loss

RECIPE = Recipe(steps=1500, learning_rate=7e-4, hidden_learning_rate=0.01)
BATCH = 4
LATENT_NOISE = 0.1  # largest deviation of the noise; the latents themselves have deviation 1


def train_decoder(workdir: Path, steps: int | None = None) -> None:
    """Train the decoder on whole pictures from the latents that the UNet learns, then log the held-out PSNR."""
    drawings, latents = load_set(workdir, "train"), encode_latents(workdir, "train")
    decoder = Decoder(load_vae(workdir)).to(memory_format=torch.channels_last).train()

    def loss(moment: Moment) -> torch.Tensor:
        chosen = moment.rng.integers(0, len(latents), BATCH)
        strength = torch.rand(BATCH, 1, 1, 1) * LATENT_NOISE
        noisy = latents[chosen] + strength * torch.randn(latents[chosen].shape)
        with torch.autocast("cpu", torch.bfloat16):
            given = decoder(noisy)
        return reconstruction_loss(given.float(), drawings.batch(chosen))

    train(workdir, "decoder", decoder, loss, RECIPE.limited(steps))
    measure_psnr(workdir, "decoder")
