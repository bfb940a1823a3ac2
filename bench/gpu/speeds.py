"""Measurements of what several images share, and of `speed: balanced`, each a function from models to lines."""

from functools import partial

import torch

from app.engine.diffusion.decoder import ImageDecoder
from app.engine.diffusion.denoiser import Denoiser
from bench.gpu.models import Models
from bench.gpu.ours import decode, finish_all, make_decoder, make_denoiser, start_image
from bench.gpu.parts import Effort, Line, seconds_of


@torch.inference_mode()
def decoding(models: Models, effort: Effort) -> list[Line]:
    """G7: pictures decoded in one batch beside one by one, and how far the batch's pixels are from those alone."""
    lines = []
    latents = torch.randn(8, 4, models.side, models.side, device=models.device).to(models.dtype)
    for size in (1, 2, 4, 8):
        together = partial(_decoded, models, latents[:size])
        seconds = seconds_of(models.device, together, effort.repeats)
        alone = torch.cat([_decoded(models, one[None]) for one in latents[:size]])
        figures: dict[str, float | None] = {
            "images_per_s": size / seconds,
            "max_abs": float((together() - alone).abs().max()),
        }
        lines.append(Line("G7 decoding", f"batch {size}", figures))
    return lines


def _decoded(models: Models, latents: torch.Tensor) -> torch.Tensor:
    pictures: torch.Tensor = models.vae.decode(latents / models.vae.config.scaling_factor, return_dict=False)[0]
    return pictures.float()


def speeds(models: Models, effort: Effort) -> list[Line]:
    """G8: guided images a second, decoded, at both speeds; forwards are recorded where the device can."""
    denoiser, decoder = make_denoiser(models), make_decoder(models)
    lines = []
    for speed in ("exact", "balanced"):
        for batch in effort.batches:
            draw = partial(_draw, models, denoiser, decoder, batch, effort.steps, speed)
            seconds = seconds_of(models.device, draw, max(1, effort.repeats // 3))
            rows = sum(start_image(models, 0, effort.steps, speed=speed).step_rows or ())
            figures: dict[str, float | None] = {"images_per_s": batch / seconds, "rows": rows, "s": seconds}
            lines.append(Line("G8 speeds", f"{speed}, batch {batch}", figures))
    return lines


def _draw(models: Models, denoiser: Denoiser, decoder: ImageDecoder, batch: int, steps: int, speed: str) -> None:
    states = [start_image(models, seed, steps, speed=speed) for seed in range(batch)]
    finish_all(denoiser, states)
    for state in states:
        decode(decoder, state.latents)
