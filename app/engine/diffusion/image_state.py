"""What an image is between two steps.

Handles no forwards and no requests. The device thread alone changes it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from app.engine.diffusion.image_to_image import Repainting
from app.engine.diffusion.noise.plan import NoisePlan
from app.engine.diffusion.previews import predicted_images
from app.engine.diffusion.texts.kept_texts import KeptText
from app.engine.kernels.cuda import Forward


@dataclass(slots=True)
class ImageState:
    """One image between two steps.

    Attributes:
        generator: Source of the noise that some noise schedulers add in a step; always on the CPU.
        step_rows: The rows of each step of the plan, 1 ... R; None: R of each.
        repainting: Of an image with a mask; else None.
        keeps_x0: Whether the next step leaves what it predicts in `x0`.
        forward: The UNet's with other weights; None: the model's own.
        texts: Keys and values of `prompt_embeds`, a row each; empty: they are not kept; None: no step was taken.

    Shapes:
        x0: (C, h, w) float32.
        mask_channels: (1 + C, h, w) float32, see `Beginning`.
        prompt_embeds: (R, T, D); R = 2 when guided, the unconditional row first, else 1. A step of one row takes the
            last, which is the conditional one.
        tensors: (1 + H, C, h, w) float32, the latents first; see `NoisePlan`.
    """

    plan: NoisePlan
    prompt_embeds: torch.Tensor
    guidance_scale: float
    generator: torch.Generator
    tensors: torch.Tensor
    step_rows: tuple[int, ...] | None = None
    repainting: Repainting | None = None
    mask_channels: torch.Tensor | None = None
    step_index: int = 0
    keeps_x0: bool = False
    x0: torch.Tensor | None = None
    forward: Forward | None = None
    texts: tuple[KeptText, ...] | None = None

    @property
    def latents(self) -> torch.Tensor:
        """The current sample. **Shapes**: (C, h, w) float32."""
        return self.tensors[0]

    @property
    def rows(self) -> int:
        """The number of rows of the next step."""
        return self.prompt_embeds.shape[0] if self.step_rows is None else self.step_rows[self.step_index]

    @property
    def is_denoised(self) -> bool:
        """Whether the last step is taken."""
        return self.step_index == len(self.plan.draws)


def with_mask_channels(images: Sequence[ImageState], inputs: torch.Tensor) -> torch.Tensor:
    """Return the inputs of images of one UNet, with the mask channels behind them if it has some.

    Shapes:
        inputs: (B, C, h, w) float32; returns: as they are, or (B, 2 * C + 1, h, w).

    Source:
        diffusers `StableDiffusionInpaintPipeline.__call__`, step 10, for a UNet of nine channels.
    """
    channels = [image.mask_channels for image in images if image.mask_channels is not None]
    return torch.cat([inputs, torch.stack(channels)], dim=1) if channels else inputs


def kept_x0s(
    images: Sequence[ImageState], samples: torch.Tensor, predicted: torch.Tensor
) -> list[tuple[ImageState, torch.Tensor]]:
    """Return the images that keep what this step predicts, each with that. **Shapes**: (B, C, h, w)."""
    indices = [index for index, image in enumerate(images) if image.keeps_x0]
    if not indices:
        return []
    keeping = [images[index] for index in indices]
    weights = [image.plan.x0_weights[image.step_index] for image in keeping]
    return list(zip(keeping, predicted_images(samples, predicted, weights, indices), strict=True))


@contextmanager
def rewound(images: Sequence[ImageState]) -> Iterator[None]:
    """Restore the generators when the block raises: the step will be taken again."""
    drawing = [image.generator for image in images if image.plan.draws[image.step_index]]
    before = [generator.get_state() for generator in drawing]
    try:
        yield
    except BaseException:
        for generator, state in zip(drawing, before, strict=True):
            generator.set_state(state)
        raise
