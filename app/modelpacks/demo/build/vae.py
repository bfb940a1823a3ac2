"""Stage `vae`: an AutoencoderKL with SD 1.5's factor (8) and latent channels (4), trained on crops of drawings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from app.modelpacks.demo.build.drawings import Drawings, load_set
from app.modelpacks.demo.build.workdir import TORCH_SEED, Budget, cosine, load, log, save

BATCH = 16
CROP = 64
LEARNING_RATE = 1.5e-3
KL_WEIGHT = 2e-6
EMA_DECAY = 0.995
CHECKPOINT_EVERY = 100


def new_vae() -> AutoencoderKL:
    """The untrained autoencoder."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 64, 96, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=128,
        mid_block_add_attention=False,
    )


def _edges(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return picture[..., :, 1:] - picture[..., :, :-1], picture[..., 1:, :] - picture[..., :-1, :]


def reconstruction_loss(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute and squared error at four scales, edges at the two finest, hues at the two coarsest.

    Edges keep lines sharp; without the hues a small autoencoder learns brightness first and paints in grey.
    """
    total = torch.zeros(())
    for scale in range(4):
        error = given - wanted
        total = total + error.abs().mean() + 2 * error.square().mean()
        if scale < 2:
            for a, b in zip(_edges(given), _edges(wanted), strict=True):
                total = total + 0.7 * (a - b).abs().mean()
        else:
            total = total + 2 * (error - error.mean(dim=1, keepdim=True)).abs().mean()
        given, wanted = F.avg_pool2d(given, 2), F.avg_pool2d(wanted, 2)
    return total


def random_crops(drawings: Drawings, rng: np.random.Generator) -> torch.Tensor:
    """A batch of crops at random places. **Shapes**: (BATCH, 3, CROP, CROP), -1 to 1, channels last."""
    chosen = rng.integers(0, len(drawings.images), BATCH)
    corners = rng.integers(0, 129 - CROP, (BATCH, 2))
    crops = [drawings.images[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(chosen, corners, strict=True)]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def train(workdir: Path, minutes: float) -> None:
    """Train, or go on training, until `minutes` of this stage are used; then measure the latents."""
    torch.manual_seed(TORCH_SEED)
    drawings, path = load_set(workdir, "train"), workdir / "vae.pt"
    vae: nn.Module = new_vae().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=LEARNING_RATE, weight_decay=1e-3)
    step, spent, ema = 0, 0.0, {name: value.detach().clone() for name, value in vae.state_dict().items()}
    if state := load(path):
        vae.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent, ema = state["step"], state["spent"], state["ema"]
    budget, rng = Budget(minutes, spent), np.random.default_rng([TORCH_SEED, step])
    while budget.share < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(budget.share)
        loss = train_step(vae, optimizer, random_crops(drawings, rng))
        step += 1
        for name, value in vae.state_dict().items():
            ema[name].lerp_(value, 1 - EMA_DECAY)
        if step % CHECKPOINT_EVERY == 0 or budget.share >= 1:
            log(workdir, "vae", step=step, loss=round(loss, 4), minutes=round(budget.used / 60, 1))
            save(path, _state(vae, optimizer, step, budget.used, ema))
    measure(workdir)


def train_step(vae: nn.Module, optimizer: torch.optim.Optimizer, pixels: torch.Tensor) -> float:
    """One optimizer step; returns the loss."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist  # type: ignore[operator]
        given = vae.decode(posterior.sample()).sample  # type: ignore[operator]
    kl = posterior.kl().float().mean()
    loss = reconstruction_loss(given.float(), pixels) + KL_WEIGHT * kl
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def _state(
    vae: nn.Module, optimizer: torch.optim.Optimizer, step: int, spent: float, ema: dict[str, torch.Tensor]
) -> dict[str, object]:
    return {
        "model": vae.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "spent": spent, "ema": ema,
    }  # fmt: skip


def load_vae(workdir: Path) -> AutoencoderKL:
    """The trained autoencoder (averaged weights), its latents standardised once they are measured."""
    vae = new_vae()
    if state := load(workdir / "vae.pt"):
        vae.load_state_dict(state["ema"])
    if measured := load(workdir / "vae-scale.pt"):
        standardise(vae, measured["mean"], measured["std"])
    return vae.eval()


@torch.inference_mode()
def measure(workdir: Path) -> None:
    """Measure the latents' mean and deviation for each channel on training drawings, and log the held-out PSNR."""
    vae, drawings = load_vae(workdir), load_set(workdir, "train")
    latents = torch.cat([vae.encode(drawings.batch(np.arange(k, k + 25))).latent_dist.mean for k in range(0, 400, 25)])
    save(workdir / "vae-scale.pt", {"mean": latents.mean(dim=(0, 2, 3)), "std": latents.std(dim=(0, 2, 3))})
    held_out = load_set(workdir, "held_out").batch(np.arange(100))
    given = vae.decode(vae.encode(held_out).latent_dist.mean).sample.clamp(-1, 1)
    errors = ((given - held_out) / 2).square().mean(dim=(1, 2, 3))
    log(workdir, "vae", held_out_psnr=round(float((-10 * errors.log10()).mean()), 2))


@torch.no_grad()
def standardise(vae: AutoencoderKL, mean: torch.Tensor, std: torch.Tensor) -> None:
    """Fold a shift and scale for each latent channel into the 1x1 convolutions around the latents.

    Afterwards the scaled latents have mean 0 and deviation 1 in each channel with SD 1.5's own scaling factor;
    what the autoencoder gives back is unchanged.
    """
    factor = 1 / (std * vae.config.scaling_factor)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.weight[:4] *= factor[:, None, None, None]
    quant.bias[:4] = (quant.bias[:4] - mean) * factor
    quant.bias[4:] += 2 * factor.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight /= factor[None, :, None, None]
