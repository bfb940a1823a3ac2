"""Where an image begins that is made from another one, and what a mask does to it.

A UNet without channels for a mask gets the initial image outside of it after each step, at that step's level of noise;
one with such channels gets the mask and the rest of the picture as inputs of every step. Handles no prompts and takes
no steps. Runs on the device thread.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from app.engine.diffusion.encoder import ImageEncoder, ImageToImage
from app.engine.diffusion.noise.plan import NoisePlan
from app.engine.diffusion.noise.update import draw_noise


@dataclass(frozen=True, slots=True)
class Repainting:
    """What holds the part of an image outside of its mask.

    Shapes:
        mask: (1, h, w) float32, 1 where the image is repainted.
        latents: (C, h, w) float32, of the initial image; noise: as they are, its initial noise.
    """

    mask: torch.Tensor
    latents: torch.Tensor
    noise: torch.Tensor

    def hold(self, latents: torch.Tensor, noise_level: tuple[float, float]) -> torch.Tensor:
        """Return latents with the initial image, at a level of noise, in place of what is not repainted.

        Shapes:
            latents, returns: (C, h, w) float32.

        Source:
            diffusers `StableDiffusionInpaintPipeline.__call__`, step 10, for a UNet of four channels.
        """
        of_image, of_noise = noise_level
        held = of_image * self.latents + of_noise * self.noise if of_noise else self.latents
        return (1 - self.mask) * held + self.mask * latents


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where an image begins.

    Attributes:
        repainting: What holds it outside of a mask; None: nothing does.

    Shapes:
        latents: (C, h, w) float32, the first sample.
        mask_channels: (1 + C, h, w) float32, what the UNet gets beside the sample; None: it has no channels for it.
    """

    latents: torch.Tensor
    repainting: Repainting | None = None
    mask_channels: torch.Tensor | None = None


def begin(
    encoder: ImageEncoder,
    payload: ImageToImage,
    plan: NoisePlan,
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype,
) -> Beginning:
    """Begin an image on a UNet without channels for a mask.

    Args:
        encoder: The model's.
        payload: What to make.
        plan: Its steps.
        generator: The image's random numbers.
        device: Of the latents.
        dtype: In which the noise is drawn.

    Source:
        diffusers `StableDiffusionImg2ImgPipeline` and `StableDiffusionInpaintPipeline`, `prepare_latents`; the latter
        begins with noise alone at a strength of 1.
    """
    assert plan.noise_levels is not None
    latents = encoder.draw(payload, generator)
    noise = draw_noise(latents.shape, generator, device, dtype)
    of_image, of_noise = plan.noise_levels[0]
    first = of_image * latents + of_noise * noise
    if payload.mask is None:
        return Beginning(first)
    encoder.skip_draw(latents, generator)
    mask = latent_mask(payload, *latents.shape[1:], is_rounded=payload.spec.mask_blur == 0).to(device)
    is_noise_alone = payload.spec.strength == 1
    return Beginning(noise * plan.init_noise_sigma if is_noise_alone else first, Repainting(mask, latents, noise))


def begin_in_mask(
    encoder: ImageEncoder,
    payload: ImageToImage,
    plan: NoisePlan,
    generator: torch.Generator,
    device: torch.device,
    dtype: torch.dtype,
) -> Beginning:
    """Begin an image with a mask on a UNet that has channels for it; arguments as of `begin`.

    The random numbers are those of the pipeline, in its order: at a strength of 1 it does not encode the picture. The
    mask is black and white, blurred or not, as those are that such networks were trained with.

    Source:
        diffusers `StableDiffusionInpaintPipeline`, `prepare_latents` and `prepare_mask_latents`, for nine channels.
    """
    assert plan.noise_levels is not None
    if payload.spec.strength == 1:
        noise = draw_noise(encoder.latent_shape(payload), generator, device, dtype)
        first = noise * plan.init_noise_sigma
    else:
        latents = encoder.draw(payload, generator)
        noise = draw_noise(latents.shape, generator, device, dtype)
        of_image, of_noise = plan.noise_levels[0]
        first = of_image * latents + of_noise * noise
    outside = encoder.draw_outside(payload, generator)
    mask = latent_mask(payload, *outside.shape[1:], is_rounded=True).to(device)
    return Beginning(first, mask_channels=torch.cat([mask, outside]))


def latent_mask(payload: ImageToImage, height: int, width: int, *, is_rounded: bool) -> torch.Tensor:
    """Return the mask at the size of latents; 0 or 1 where it is rounded.

    Shapes:
        returns: (1, height, width) float32, 0 ... 1, on the CPU.

    Source:
        diffusers `StableDiffusionInpaintPipeline`: `mask_processor` and `prepare_mask_latents`.
    """
    assert payload.mask is not None
    mask = torch.from_numpy(payload.mask.astype(np.float32) / 255.0)
    if is_rounded:
        mask = (mask >= 0.5).float()
    return functional.interpolate(mask[None, None], size=(height, width))[0]
