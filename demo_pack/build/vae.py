"""Stage `vae`: an AutoencoderKL with SD 1.5's factor (8) and latent channels (4), trained on drawings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import nn
from torch.nn import functional as F

from demo_pack.build.drawings import Drawings, load_set
from demo_pack.build.loop import Moment, Recipe, load_average, train
from demo_pack.build.workdir import load, log, save

RECIPE = Recipe(steps=3600, learning_rate=1.5e-3)
CROP, CROPS = 64, 16
WHOLE_FROM = 0.85  # share of the steps before whole pictures, which give GroupNorm its later statistics
WHOLE = 4
KL_WEIGHT = 2e-6


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


@torch.no_grad()
def initialise(vae: AutoencoderKL) -> None:
    """Initialise the autoencoder close to the identity: zero residuals, orthogonal resampling, little noise.

    Source: zero residual branches as in Goyal et al. 2017 (arXiv:1706.02677), orthogonal maps as in Saxe et al. 2013.
    """
    silence_residuals(vae)
    for name, module in vae.named_modules():
        passes_on = any(part in name for part in ("sampler", "conv_in", "shortcut", "quant"))
        if passes_on and isinstance(module, nn.Conv2d):
            nn.init.orthogonal_(module.weight)
    deviation = vae.quant_conv.weight[vae.config.latent_channels :], vae.quant_conv.bias[vae.config.latent_channels :]
    deviation[0].mul_(0.1)
    deviation[1].fill_(-5.0)  # a log variance: the posterior begins narrow


@torch.no_grad()
def silence_residuals(model: nn.Module) -> None:
    """Start every residual block of convolutions as the identity."""
    for module in model.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)


def _edges(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return picture[..., :, 1:] - picture[..., :, :-1], picture[..., 1:, :] - picture[..., :-1, :]


def reconstruction_loss(given: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Absolute and squared error at four scales, edges at the two finest, hues at the two coarsest.

    The edges keep lines sharp; without the hues a small autoencoder learns brightness first and decodes in grey.
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


def random_pixels(drawings: Drawings, moment: Moment) -> torch.Tensor:
    """Crops at random places, in the last steps whole pictures. **Shapes**: (B, 3, H, W), -1 to 1, channels last."""
    if moment.share >= WHOLE_FROM:
        return drawings.batch(moment.rng.integers(0, len(drawings.images), WHOLE))
    chosen = moment.rng.integers(0, len(drawings.images), CROPS)
    corners = moment.rng.integers(0, 129 - CROP, (CROPS, 2))
    crops = [drawings.images[i, y : y + CROP, x : x + CROP] for i, (y, x) in zip(chosen, corners, strict=True)]
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    return pixels.to(torch.float32).div_(127.5).sub_(1)


def train_vae(workdir: Path, steps: int | None = None) -> None:
    """Train the autoencoder, then measure its latents."""
    drawings = load_set(workdir, "train")
    torch.manual_seed(0)
    vae = new_vae()
    initialise(vae)
    vae.to(memory_format=torch.channels_last)

    def loss(moment: Moment) -> torch.Tensor:
        return vae_loss(vae, random_pixels(drawings, moment))

    if train(workdir, "vae", vae, loss, RECIPE.limited(steps)):
        forget_what_follows(workdir)
        measure(workdir)


def forget_what_follows(workdir: Path) -> None:
    """Remove all files that depend on an earlier autoencoder: decoder, latents, and models trained on them."""
    learned = ("decoder.pt", "diffusion.pt", "guidance.pt", "clip.pt", "classifier.pt")
    followers = ("latents-*.pt", "reconstructions.pt", *learned)
    for path in [path for pattern in followers for path in workdir.glob(pattern)]:
        path.unlink()


def vae_loss(vae: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """Reconstruction from a sampled latent, and a little of the posterior's divergence."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = vae.encode(pixels).latent_dist  # type: ignore[operator]
        given = vae.decode(posterior.sample()).sample  # type: ignore[operator]
    kl: torch.Tensor = posterior.kl().float().mean()
    return reconstruction_loss(given.float(), pixels) + KL_WEIGHT * kl


class Decoder(nn.Module):
    """The part of an autoencoder that turns scaled latents into pixels; shares its weights."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder
        self._factor = vae.config.scaling_factor

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """**Shapes**: latents (B, 4, H, W), returns (B, 3, 8 H, 8 W), about -1 to 1."""
        pixels: torch.Tensor = self.decoder(self.post_quant_conv(latents / self._factor))
        return pixels


def load_vae(workdir: Path) -> AutoencoderKL:
    """The autoencoder as far as it is trained (averaged weights): its latents standardised, then its decoder."""
    vae = new_vae()
    load_average(workdir, "vae", vae)
    if measured := load(workdir / "vae-scale.pt"):
        standardise(vae, measured["mean"], measured["std"])
    load_average(workdir, "decoder", Decoder(vae))
    return vae.eval()


@torch.inference_mode()
def measure(workdir: Path) -> None:
    """Measure the latents' mean and deviation for each channel on training drawings."""
    vae, drawings = new_vae().eval(), load_set(workdir, "train")
    load_average(workdir, "vae", vae)
    latents = torch.cat([vae.encode(drawings.batch(np.arange(k, k + 25))).latent_dist.mean for k in range(0, 400, 25)])
    save(workdir / "vae-scale.pt", {"mean": latents.mean(dim=(0, 2, 3)), "std": latents.std(dim=(0, 2, 3))})
    measure_psnr(workdir, "vae")


@torch.inference_mode()
def measure_psnr(workdir: Path, stage: str) -> None:
    """Log the reconstruction's PSNR in dB on held-out drawings."""
    vae, held_out = load_vae(workdir), load_set(workdir, "held_out").batch(np.arange(100))
    given = vae.decode(vae.encode(held_out).latent_dist.mean).sample.clamp(-1, 1)
    errors = ((given - held_out) / 2).square().mean(dim=(1, 2, 3))
    log(workdir, stage, held_out_psnr=round(float((-10 * errors.log10()).mean()), 2))


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
