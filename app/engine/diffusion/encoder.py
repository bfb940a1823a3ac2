"""Pictures to latents: the VAE's encoder with a cache; where an image begins that is made from another one.

Handles no prompts, no steps and no files. Runs on the device thread.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

from app.engine.cache import ByteBoundedCache
from app.image_spec import ImageSpec

# About 250 pictures of 512 x 512 in float16, 120 in float32; a request repeats one picture for each of its images.
CACHE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True, eq=False)
class ImageToImage:
    """The payload of a request for an image that is made from another one.

    Attributes:
        spec: What to make; its `init_image` and `mask` name the pictures.
        pixels: The initial image, of the spec's size.
        mask: Where it is repainted, 255 for fully; None: everywhere. Blurred and inverted as the spec says.

    Shapes:
        pixels: (H, W, 3), uint8. mask: (H, W), uint8.
    """

    spec: ImageSpec
    pixels: np.ndarray
    mask: np.ndarray | None = None


class _Posterior(NamedTuple):
    """The VAE's distribution of a picture's latents: (1, C, h, w) each, in the VAE's dtype, on the device."""

    mean: torch.Tensor
    std: torch.Tensor


class ImageEncoder:
    """Encodes one picture at a time, as diffusers' pipelines do, with a cache of the latest ones."""

    def __init__(self, vae: Any, device: torch.device, cache_bytes: int = CACHE_BYTES) -> None:
        """Take an `AutoencoderKL` on the device, in eval mode."""
        self._vae = vae
        self._device = device
        self._cache = ByteBoundedCache[str, _Posterior](
            cache_bytes, lambda _name, found: found.mean.nbytes + found.std.nbytes
        )

    def draw(self, payload: ImageToImage, generator: torch.Generator) -> torch.Tensor:
        """Draw the latents of the initial image from the VAE's distribution of them.

        Shapes:
            returns: (C, h, w) float32, on the device.

        Source:
            diffusers `StableDiffusionImg2ImgPipeline.prepare_latents` and `retrieve_latents`.
        """
        assert payload.spec.init_image is not None
        return self._draw(payload.spec.init_image.sha256, payload.pixels, None, generator)

    def draw_outside(self, payload: ImageToImage, generator: torch.Generator) -> torch.Tensor:
        """Draw the latents of the initial image with grey where it is repainted; its mask is rounded.

        Shapes:
            returns: (C, h, w) float32, on the device.

        Source:
            diffusers `StableDiffusionInpaintPipeline.__call__`, step 7, and `prepare_mask_latents`.
        """
        spec = payload.spec
        assert spec.init_image is not None
        assert spec.mask is not None
        assert payload.mask is not None
        is_outside = torch.from_numpy(payload.mask.astype(np.float32) / 255.0) < 0.5
        return self._draw(f"{spec.init_image.sha256} {spec.mask.sha256}", payload.pixels, is_outside, generator)

    def latent_shape(self, payload: ImageToImage) -> tuple[int, int, int]:
        """Return channels, height and width of the latents of an image."""
        config = self._vae.config
        side = 2 ** (len(config.block_out_channels) - 1)
        return config.latent_channels, payload.spec.height // side, payload.spec.width // side

    def _draw(
        self, name: str, pixels: np.ndarray, is_kept: torch.Tensor | None, generator: torch.Generator
    ) -> torch.Tensor:
        """Draw latents of what is in the cache under this name, or else of the pixels, grey where they are not kept."""
        posterior = self._cache.get(name)
        if posterior is None:
            posterior = self._encode(pixels, is_kept)
            self._cache.put(name, posterior)
        mean, std = posterior
        noise = randn_tensor(mean.shape, generator=generator, device=self._device, dtype=mean.dtype)
        latents: torch.Tensor = self._vae.config.scaling_factor * (mean + std * noise)
        return latents[0].float()

    def skip_draw(self, latents: torch.Tensor, generator: torch.Generator) -> None:
        """Draw and drop the numbers of one picture: the pipeline for masks encodes a second one, and uses 4 channels.

        Shapes:
            latents: (C, h, w).
        """
        randn_tensor((1, *latents.shape), generator=generator, device=self._device, dtype=self._vae.dtype)

    def _encode(self, pixels: np.ndarray, is_kept: torch.Tensor | None) -> _Posterior:
        """Encode one picture: in a batch the last bits would depend on the number of pictures."""
        values = torch.from_numpy(pixels.astype(np.float32) / 255.0).permute(2, 0, 1)[None] * 2.0 - 1.0
        if is_kept is not None:
            values = values * is_kept
        distribution = self._vae.encode(values.to(self._device, self._vae.dtype)).latent_dist
        return _Posterior(distribution.mean.clone(), distribution.std)
