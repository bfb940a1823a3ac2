"""Stable Diffusion without its weights: the architecture of v1.5, or a tiny one to try the script on a CPU."""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

TEXT_TOKENS = 77

# Stable Diffusion v1.5's own scheduler_config.json.
NOISE_SCHEDULER: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}

# Of one row at 64x64 latents, attention included; counted layer by layer from the architecture.
SD15_ROW_FLOP = 803.3e9


@dataclass(frozen=True, slots=True)
class Models:
    """What is measured.

    Attributes:
        side: Of the latents.
        row_flop: Of one row's forward; None where nobody counted.
    """

    unet: Any
    vae: Any
    device: torch.device
    dtype: torch.dtype
    side: int
    row_flop: float | None

    def embeds(self, seed: int) -> torch.Tensor:
        """Draw the embedding of a prompt. **Shapes**: (1, T, D)."""
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(1, TEXT_TOKENS, self.unet.config.cross_attention_dim, generator=generator)
        return drawn.to(self.device, self.dtype)

    def pipeline(self) -> StableDiffusionPipeline:
        """Build diffusers' own around the same models."""
        pipeline = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=None,
            tokenizer=None,
            unet=self.unet,
            scheduler=DDIMScheduler.from_config(NOISE_SCHEDULER),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline


def build_models(device: torch.device, dtype: torch.dtype, *, is_tiny: bool, channels_last: bool = True) -> Models:
    """Build UNet and VAE with random weights, the same ones each time."""
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(**(_TINY_UNET if is_tiny else {"sample_size": 64, "cross_attention_dim": 768}))
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 16, 16) if is_tiny else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1 if is_tiny else 2,
            latent_channels=4,
            norm_num_groups=4 if is_tiny else 32,
            sample_size=64 if is_tiny else 512,
        )
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    for model in (unet, vae):
        model.eval().requires_grad_(False).to(device, dtype, memory_format=memory_format)
    side = 8 if is_tiny else 64
    return Models(unet, vae, device, dtype, side, None if is_tiny else SD15_ROW_FLOP)


_TINY_UNET: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "sample_size": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
}
