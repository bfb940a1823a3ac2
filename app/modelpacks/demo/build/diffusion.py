"""Stage `diffusion`: UNet and text tower, trained together on the drawings' latents.

Noise schedule and prediction type are Stable Diffusion 1.5's, so that every scheduler works as it does there.
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, PNDMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from app.modelpacks.demo.build.drawings import Drawings, load_set
from app.modelpacks.demo.build.text import MAX_TOKENS, text_config, train_tokenizer
from app.modelpacks.demo.build.vae import load_vae
from app.modelpacks.demo.build.workdir import TORCH_SEED, Budget, cosine, load, log, save

BATCH = 48
ENCODED = 12000
LEARNING_RATE = 6e-4
EMPTY_CAPTIONS = 0.1
MIN_SNR_GAMMA = 5.0  # Hang et al. 2023, "Efficient Diffusion Training via Min-SNR Weighting Strategy"
EMA_DECAY = 0.9985
CHECKPOINT_EVERY = 100
TEXT_LAYERS = 2


def new_unet() -> UNet2DConditionModel:
    """The untrained UNet: three levels, the lower two with cross-attention of width 128."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(64, 128, 112),
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


@torch.inference_mode()
def encode_latents(workdir: Path) -> torch.Tensor:
    """Scaled mean latents of the first training drawings, computed once. **Shapes**: (N, 4, 16, 16) float32."""
    path = workdir / "latents.pt"
    if state := load(path):
        latents: torch.Tensor = state["latents"]
        return latents
    vae, drawings = load_vae(workdir).to(memory_format=torch.channels_last), load_set(workdir, "train")
    parts = []
    for start in range(0, min(ENCODED, len(drawings.images)), 50):
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(drawings.batch(np.arange(start, start + 50))).latent_dist
        parts.append(posterior.mean.float())
    latents = torch.cat(parts) * vae.config.scaling_factor
    save(path, {"latents": latents})
    log(workdir, "diffusion", latents=len(latents), std=round(float(latents.std()), 3))
    return latents


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Token ids as the pipeline makes them. **Shapes**: (N, 77) int64."""
    encoded = tokenizer(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    ids: torch.Tensor = encoded.input_ids
    return ids


def tokenizer_of(workdir: Path, drawings: Drawings) -> CLIPTokenizer:
    """The pack's tokenizer, trained when it is first asked for."""
    folder = workdir / "tokenizer"
    if (folder / "tokenizer.json").exists():
        return CLIPTokenizer.from_pretrained(folder)
    return train_tokenizer(chain.from_iterable(drawings.captions[:6000]), folder)


class Batches:
    """Random batches of (latents, token ids); captions are left empty for one picture in ten."""

    def __init__(self, latents: torch.Tensor, drawings: Drawings, tokenizer: CLIPTokenizer, seed: list[int]) -> None:
        self.latents, self.rng = latents, np.random.default_rng(seed)
        per_drawing = len(drawings.captions[0])
        ids = tokenize(tokenizer, list(chain.from_iterable(drawings.captions)))
        self.token_ids = ids.reshape(-1, per_drawing, MAX_TOKENS)
        self.empty = tokenize(tokenizer, [""])[0]

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, 4, 16, 16) and token ids (B, 77)."""
        chosen: NDArray[np.int64] = self.rng.integers(0, len(self.latents), BATCH)
        wording = self.rng.integers(0, self.token_ids.shape[1], BATCH)
        ids = self.token_ids[chosen, wording]
        ids[self.rng.random(BATCH) < EMPTY_CAPTIONS] = self.empty
        return self.latents[chosen], ids


def train_step(
    model: Diffusion,
    optimizer: torch.optim.Optimizer,
    schedule: DDPMScheduler,
    latents: torch.Tensor,
    ids: torch.Tensor,
) -> float:
    """One optimizer step of noise prediction with min-SNR weights; returns the loss."""
    noise, timesteps = torch.randn_like(latents), torch.randint(0, 1000, (len(latents),))
    noisy = schedule.add_noise(latents, noise, timesteps).to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        predicted = model(noisy, timesteps, ids)
    alphas = schedule.alphas_cumprod[timesteps]
    snr = alphas / (1 - alphas)
    errors = (predicted.float() - noise).square().mean(dim=(1, 2, 3))
    loss = (errors * snr.clamp(max=MIN_SNR_GAMMA) / snr).mean()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


def train(workdir: Path, minutes: float) -> None:
    """Train, or go on training, until `minutes` of this stage are used."""
    drawings, path = load_set(workdir, "train"), workdir / "diffusion.pt"
    latents, tokenizer = encode_latents(workdir), tokenizer_of(workdir, drawings)
    torch.manual_seed(TORCH_SEED)
    model = Diffusion(tokenizer).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    step, spent, ema = 0, 0.0, {name: value.detach().clone() for name, value in model.state_dict().items()}
    if state := load(path):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent, ema = state["step"], state["spent"], state["ema"]
    torch.manual_seed(TORCH_SEED + step)
    batches, schedule = Batches(latents, drawings, tokenizer, [TORCH_SEED, step]), _ddpm()
    budget, recent = Budget(minutes, spent), []
    while budget.share < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(budget.share)
        recent.append(train_step(model, optimizer, schedule, *batches.next()))
        step += 1
        _average(ema, model, step)
        if step % CHECKPOINT_EVERY == 0 or budget.share >= 1:
            mean, recent = sum(recent) / len(recent), []
            log(workdir, "diffusion", step=step, loss=round(mean, 4), minutes=round(budget.used / 60, 1))
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "ema": ema}
            save(path, {**parts, "step": step, "spent": budget.used})


def _average(ema: dict[str, torch.Tensor], model: nn.Module, step: int) -> None:
    """Exponential moving average of the weights, quicker at first."""
    decay = min(EMA_DECAY, (1 + step) / (10 + step))
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            ema[name].lerp_(value, 1 - decay)


def _ddpm() -> DDPMScheduler:
    return DDPMScheduler.from_config(new_noise_scheduler().config)


def load_diffusion(workdir: Path) -> tuple[Diffusion, CLIPTokenizer]:
    """The trained model (averaged weights) and its tokenizer; untrained where no checkpoint is."""
    tokenizer = tokenizer_of(workdir, load_set(workdir, "train"))
    model = Diffusion(tokenizer)
    if state := load(workdir / "diffusion.pt"):
        model.load_state_dict(state["ema"])
    return model.eval(), tokenizer
