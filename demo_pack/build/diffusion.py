"""Stage `diffusion`: UNet and text tower, trained together on the drawings' latents.

Noise schedule and prediction type are Stable Diffusion 1.5's, so that every scheduler works as it does there.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from diffusers import DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from demo_pack.build.drawings import OTHER_SIZES, Drawings, load_set
from demo_pack.build.latents import encode_latents
from demo_pack.build.loop import Moment, Recipe, load_average, train
from demo_pack.build.text import MAX_TOKENS, text_config, train_tokenizer
from demo_pack.build.vae import silence_residuals

RECIPE = Recipe(steps=6400, learning_rate=1e-3, ema_decay=0.9985)
BATCH = 48
OTHER_SIZE_SHARE = 0.2
EMPTY_CAPTIONS = 0.1
MIN_SNR_GAMMA = 5.0  # Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy"
TEXT_LAYERS = 2


def new_unet() -> UNet2DConditionModel:
    """The untrained UNet: three levels, the lower two with cross-attention of width 128.

    Attention at the full latent size would cost as much time as all the rest (measured: 0.48 s a step for 0.27 s);
    the width goes there instead.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(96, 128, 112),
        layers_per_block=1,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def new_noise_scheduler() -> PNDMScheduler:
    """SD 1.5's default noise scheduler with its exact configuration."""
    config = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "skip_prk_steps": True,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "clip_sample": False,  # PNDM never clips; kept for the schedulers that are made from this configuration
    }
    return PNDMScheduler.from_config(config)


class Diffusion(nn.Module):
    """UNet and text tower as one module."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet = new_unet()
        self.unet.set_attn_processor(AttnProcessor())  # trains a quarter faster on the CPU than fused attention
        self.text_encoder = CLIPTextModel(text_config(tokenizer, TEXT_LAYERS))

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, token_ids: torch.Tensor) -> torch.Tensor:
        """The predicted noise. **Shapes**: noisy and result (B, 4, H, W), timesteps (B,), token ids (B, 77)."""
        words = self.text_encoder(token_ids).last_hidden_state
        predicted: torch.Tensor = self.unet(noisy, timesteps, words).sample
        return predicted


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids as the pipeline makes them. **Shapes**: (N, 77) int64."""
    encoded = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids


def tokenizer_of(workdir: Path, drawings: Drawings) -> CLIPTokenizer:
    """The pack's tokenizer, which the first call trains."""
    folder = workdir / "tokenizer"
    if (folder / "merges.txt").exists():
        return CLIPTokenizer.from_pretrained(folder)
    return train_tokenizer(chain.from_iterable(drawings.captions[:6000]), folder)


@dataclass(frozen=True)
class Lessons:
    """One drawn set as training data of the UNet. **Shapes**: latents (N, 4, H, W), token ids (N, captions, 77)."""

    latents: torch.Tensor
    token_ids: torch.Tensor

    def batch(self, moment: Moment, empty: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Random latents, as many as fit the cost of `BATCH` of 16x16, and their captions, some left `empty`."""
        height, width = self.latents.shape[2:]
        size = min(2 * BATCH, BATCH * 256 // (height * width))
        chosen = moment.rng.integers(0, len(self.latents), size)
        ids = self.token_ids[chosen, moment.rng.integers(0, self.token_ids.shape[1], size)]
        ids[moment.rng.random(size) < EMPTY_CAPTIONS] = empty
        return self.latents[chosen], ids


def lessons_of(workdir: Path, name: str, tokenizer: CLIPTokenizer) -> Lessons:
    """The latents and tokenized captions of a drawn set."""
    drawings = load_set(workdir, name)
    ids = tokenize(tokenizer, list(chain.from_iterable(drawings.captions)))
    return Lessons(encode_latents(workdir, name), ids.reshape(len(drawings.images), -1, MAX_TOKENS))


class Course:
    """The training data of the UNet: square drawings, and in every fifth step another size."""

    def __init__(self, workdir: Path) -> None:
        """Take the drawn sets and their latents."""
        self.tokenizer = tokenizer_of(workdir, load_set(workdir, "train"))
        self._native = lessons_of(workdir, "train", self.tokenizer)
        names = [f"train-{width}x{height}" for width, height in OTHER_SIZES]
        self._others = [lessons_of(workdir, name, self.tokenizer) for name in names]
        self.empty = tokenize(self.tokenizer, [""])[0]
        self._schedule = DDPMScheduler.from_config(new_noise_scheduler().config)

    def batch(self, moment: Moment) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, 4, H, W) of one size and their token ids (B, 77)."""
        is_other = moment.rng.random() < OTHER_SIZE_SHARE
        lessons = self._others[moment.rng.integers(len(self._others))] if is_other else self._native
        return lessons.batch(moment, self.empty)

    def add_noise(self, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noise, timesteps (B,) and noisy latents, all at random."""
        noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (len(latents),))
        noisy = self._schedule.add_noise(latents, noise, timesteps).to(memory_format=torch.channels_last)
        return noise, timesteps, noisy

    def error(self, predicted: torch.Tensor, wanted: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Mean square error of predicted noise, with min-SNR weights."""
        alphas = self._schedule.alphas_cumprod[timesteps]
        snr = alphas / (1 - alphas)
        errors = (predicted.float() - wanted.float()).square().mean(dim=(1, 2, 3))
        weighted: torch.Tensor = (errors * snr.clamp(max=MIN_SNR_GAMMA) / snr).mean()
        return weighted


def train_diffusion(workdir: Path, steps: int | None = None) -> None:
    """Train UNet and text tower together; removes outdated weights of the stage `guidance`."""
    course = Course(workdir)
    torch.manual_seed(0)
    model = Diffusion(course.tokenizer)
    silence_residuals(model.unet)
    model.to(memory_format=torch.channels_last)

    def loss(moment: Moment) -> torch.Tensor:
        latents, ids = course.batch(moment)
        noise, timesteps, noisy = course.add_noise(latents)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = model(noisy, timesteps, ids)
        return course.error(predicted, noise, timesteps)

    if train(workdir, "diffusion", model, loss, RECIPE.limited(steps)):
        (workdir / "guidance.pt").unlink(missing_ok=True)


def load_diffusion(workdir: Path, stage: str) -> tuple[Diffusion, CLIPTokenizer]:
    """The averaged weights of `stage` (`diffusion` or `guidance`) and the tokenizer; untrained without a checkpoint."""
    tokenizer = tokenizer_of(workdir, load_set(workdir, "train"))
    model = Diffusion(tokenizer)
    load_average(workdir, stage, model)
    return model.eval(), tokenizer
