"""Our denoising loop around the models of this benchmark, without a queue and without prompts."""

from collections.abc import Sequence

import torch

from app.engine.diffusion.decoder import ImageDecoder
from app.engine.diffusion.denoiser import Denoiser
from app.engine.diffusion.image_state import ImageState
from app.engine.diffusion.noise.plan import REMEMBERED, Schedule, make_noise_plan
from app.engine.diffusion.noise.update import draw_noise
from app.engine.diffusion.options import options_for
from app.engine.kernels.compile import compile_forward
from app.step_rows import step_rows
from bench.gpu.models import NOISE_SCHEDULER, Models


def make_denoiser(
    models: Models, *, graphs: bool = True, compiles: bool = False, deterministic: bool = False
) -> Denoiser:
    """Build what serves images on this device; on a CPU there is nothing to record."""
    options = options_for(models.device, deterministic=deterministic, graphs=graphs, compiles=compiles)
    with torch.inference_mode():
        return Denoiser(models.unet, models.device, models.embeds(0), options)


def start_image(
    models: Models, seed: int, steps: int, *, guidance: float = 7.5, rows: int = 2, speed: str = "exact"
) -> ImageState:
    """Begin an image with random prompts; of one row it is not guided."""
    every = step_rows("ddim", steps, is_guided=rows > 1, speed=speed)
    schedule = Schedule(is_computed=tuple(count > 0 for count in every)) if 0 in every else Schedule()
    plan = make_noise_plan("ddim", steps, NOISE_SCHEDULER, schedule)
    generator = torch.Generator().manual_seed(seed)
    tensors = torch.zeros(1 + REMEMBERED, 4, models.side, models.side, device=models.device)
    tensors[0] = draw_noise(tensors.shape[1:], generator, models.device, models.dtype) * plan.init_noise_sigma
    embeds = [models.embeds(0), models.embeds(seed + 1)][-rows:]
    computed = tuple(count for count in every if count)
    return ImageState(plan, torch.cat(embeds), guidance, generator, tensors, step_rows=computed)


def make_decoder(models: Models, *, compiles: bool = False) -> ImageDecoder:
    """Build what makes pixels of latents, without a safety checker."""
    return ImageDecoder(models.vae, None, None, compile_forward if compiles else None, models.side)


@torch.inference_mode()
def decode(decoder: ImageDecoder, latents: torch.Tensor) -> torch.Tensor:
    """Decode one image and bring it to the host. **Shapes**: (C, h, w) to (3, H, W) float32 in -1 ... 1, of 8 bits."""
    pixels, _ = decoder.decode(latents[None])
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1


def finish_all(denoiser: Denoiser, images: Sequence[ImageState]) -> None:
    """Step images of equally many steps to their end."""
    while not images[0].is_denoised:
        denoiser.step(images)
