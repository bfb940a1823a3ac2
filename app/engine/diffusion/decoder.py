"""Latents to pixels: the VAE's decoder, then the safety checker where the pack has one.

Handles no prompts and no steps. Runs on the device thread.
"""

from typing import Any

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor

from app.engine.kernels.compile import CompiledForward, Compiler
from app.engine.kernels.cuda import Forward
from app.errors import InferenceFailed


class ImageDecoder:
    """Decodes one image at a time, as StableDiffusionPipeline does."""

    def __init__(
        self,
        vae: Any,
        safety_checker: Any | None,
        feature_extractor: Any | None,
        compiler: Compiler | None = None,
        side: int = 0,
    ) -> None:
        """Take the pack's models, on the device and in eval mode.

        Args:
            vae: An `AutoencoderKL`.
            safety_checker: A `StableDiffusionSafetyChecker`, or None where the pack has none.
            feature_extractor: The `CLIPImageProcessor` that feeds the safety checker.
            compiler: Compiles the decoding; None: it runs uncompiled.
            side: Height and width of the latents for which decoding is compiled.
        """
        self._vae = vae
        self._run: Forward = CompiledForward(self._run_vae, compiler, side) if compiler else self._run_vae
        self._safety_checker = safety_checker
        self._feature_extractor = feature_extractor
        self._image_processor = VaeImageProcessor(vae_scale_factor=2 ** (len(vae.config.block_out_channels) - 1))

    def decode(self, latents: torch.Tensor) -> tuple[np.ndarray, bool | None]:
        """Return the image and whether the safety checker flagged it (None: there is no checker).

        A flagged image is returned black, as the checker leaves it.

        Shapes:
            latents: (1, C, h, w) float32.
            returns: (H, W, 3), uint8.

        Raises:
            InferenceFailed: A value of the image is not a finite number.

        Source:
            diffusers `StableDiffusionPipeline.__call__`, `run_safety_checker` and `VaeImageProcessor.postprocess`.
        """
        image = self._run(latents)
        if not torch.isfinite(image).all():
            raise InferenceFailed("The model returned an image with values that are not finite numbers.")
        image, flagged = self._check_safety(image)
        values = self._image_processor.postprocess(image, output_type="pt", do_denormalize=[not flagged])[0]
        pixels = (values.permute(1, 2, 0).float() * 255).round().to(torch.uint8)
        return pixels.contiguous().cpu().numpy(), flagged

    def picture(self, latents: torch.Tensor) -> np.ndarray:
        """Return the decoded image as it is, unchecked, for measurements alone.

        Shapes:
            latents: (1, C, h, w) float32.
            returns: (H, W, 3), float32, 0 to 1.
        """
        image = self._run(latents)[0].float()
        return (image / 2 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()

    def _run_vae(self, *inputs: torch.Tensor) -> torch.Tensor:
        scaled = inputs[0].to(self._vae.dtype) / self._vae.config.scaling_factor
        image: torch.Tensor = self._vae.decode(scaled, return_dict=False)[0]
        return image

    def _check_safety(self, image: torch.Tensor) -> tuple[torch.Tensor, bool | None]:
        if self._safety_checker is None or self._feature_extractor is None:
            return image, None
        pictures = self._image_processor.postprocess(image, output_type="pil")
        clip_input = self._feature_extractor(pictures, return_tensors="pt").pixel_values
        image, flags = self._safety_checker(
            images=image, clip_input=clip_input.to(image.device, self._safety_checker.dtype)
        )
        return image, bool(flags[0])
