"""Stable Diffusion as a model of the engine: many images share each denoising step.

A sampling loop of its own over diffusers' models: `StableDiffusionPipeline` keeps the guidance and the noise scheduler
of its one run as attributes, so it can neither pause between steps nor serve two images that differ in them. Handles no
queues. Runs on the device thread; `calibrate` on the loader thread.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.engine.diffusion.calibration import Calibration
from app.engine.diffusion.decoder import ImageDecoder
from app.engine.diffusion.denoiser import Denoiser, ImageState, draw_noise
from app.engine.diffusion.noise_plan import REMEMBERED, Schedule, make_noise_plan
from app.engine.diffusion.options import DenoisingOptions
from app.engine.diffusion.prompts import PromptEncoder
from app.engine.kernels.cpu_diffusion import optimize_diffusion
from app.engine.request import EngineRequest, RequestCost
from app.image_spec import SIDE_MULTIPLE, ImageSpec

# Bounds the delay of a node's start; the result is stored for the next one. Enough for the demo pack to get beyond the
# sixteen rows of eight guided images on two cores.
CALIBRATION_LIMIT_S = 2.0


def cost_of(spec: ImageSpec) -> RequestCost:
    """Return the device work of an image: its steps are those that run the UNet."""
    rows = computed_rows(spec)
    return RequestCost(
        shape=(spec.height // SIDE_MULTIPLE, spec.width // SIDE_MULTIPLE),
        rows=max(rows),
        steps=len(rows),
        finishes_separately=True,
        step_rows=rows if min(rows) < max(rows) else None,
    )


def computed_rows(spec: ImageSpec) -> tuple[int, ...]:
    """Return the rows of each step that runs the UNet; forecast steps are part of the one before them."""
    return tuple(rows for rows in spec.step_rows if rows)


def schedule_of(spec: ImageSpec) -> Schedule:
    """Return which steps an image takes."""
    is_forecast = spec.forecast is not None
    return Schedule(
        timestep_spacing=spec.timestep_spacing,
        timesteps=spec.timesteps,
        is_computed=tuple(rows > 0 for rows in spec.step_rows) if is_forecast else None,
    )


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One image, and the times of its phases.

    Attributes:
        pixels: (H, W, 3), uint8.
        flagged: Whether the safety checker flagged the image; None where the pack has no checker.
        prompt_cut: The end of the prompt that exceeds CLIP's 77 tokens; None if all fits.
        negative_prompt_cut: The same for the negative prompt; also None when it was not used.
        queued_ms: Milliseconds from submission to admission.
        denoising_ms: Milliseconds from admission to the end of the last step, turns of other requests included.
        decoding_ms: Milliseconds from then to the pixels: the wait for a turn, decoding and safety check.
    """

    pixels: np.ndarray
    flagged: bool | None
    prompt_cut: str | None
    negative_prompt_cut: str | None
    queued_ms: float
    denoising_ms: float
    decoding_ms: float


class DiffusionRunner:
    """Prepares, denoises and decodes images; the arithmetic is that of `StableDiffusionPipeline`."""

    def __init__(
        self,
        *,
        tokenizer: Any,
        text_encoder: Any,
        unet: Any,
        vae: Any,
        noise_scheduler_config: Mapping[str, object],
        safety_checker: Any | None = None,
        feature_extractor: Any | None = None,
        device: torch.device,
        options: DenoisingOptions | None = None,
    ) -> None:
        """Take the pack's models, on the device and in eval mode.

        Args:
            tokenizer: A `CLIPTokenizer`.
            text_encoder: A `CLIPTextModel`; the noise is drawn in its dtype.
            unet: A `UNet2DConditionModel` without `time_cond_proj_dim`; on the CPU its layers are changed in place.
            vae: An `AutoencoderKL`; on the CPU its decoder's layers are changed in place.
            noise_scheduler_config: The pack's `scheduler_config.json`.
            safety_checker: A `StableDiffusionSafetyChecker`, or None where the pack has none.
            feature_extractor: The `CLIPImageProcessor` that feeds the safety checker.
            device: The device of the models.
            options: How the UNet's forwards are taken; None: the options for the device.
        """
        if device.type == "cpu":
            optimize_diffusion(unet)
            optimize_diffusion(vae.decoder)
        self._prompts = PromptEncoder(tokenizer, text_encoder, device)
        with torch.inference_mode():
            self._denoiser = Denoiser(unet, device, self._prompts.encode(""), options)
        compiler = self._denoiser.options.compiler
        self._decoder = ImageDecoder(vae, safety_checker, feature_extractor, compiler, unet.config.sample_size)
        self._latent_channels = unet.config.in_channels
        self._vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self._noise_scheduler_config = dict(noise_scheduler_config)
        self._device = device

    @torch.inference_mode()
    def calibrate(
        self,
        height: int,
        width: int,
        known: Calibration | None = None,
        *,
        time_limit_s: float = CALIBRATION_LIMIT_S,
    ) -> Calibration:
        """Measure steps of this size in pixels, before the first request; see `Denoiser.calibrate`."""
        latent_height, latent_width = height // self._vae_scale_factor, width // self._vae_scale_factor
        if self._denoiser.options.needs_warmup:
            blank = torch.zeros(1, self._latent_channels, latent_height, latent_width, device=self._device)
            self._decoder.decode(blank)
        return self._denoiser.calibrate(latent_height, latent_width, time_limit_s, known)

    @torch.inference_mode()
    def prepare(self, request: EngineRequest) -> None:
        """Encode the prompts, plan the steps and draw the initial noise.

        Raises:
            Invalid: The noise scheduler is unknown or does not support that many steps.

        Source:
            diffusers `StableDiffusionPipeline.__call__`, steps 3 to 6.
        """
        payload = request.payload
        assert isinstance(payload, ImageSpec)
        plan = make_noise_plan(
            payload.scheduler, payload.num_inference_steps, self._noise_scheduler_config, schedule_of(payload)
        )
        prompts = [payload.negative_prompt, payload.prompt] if payload.is_guided else [payload.prompt]
        prompt_embeds = torch.cat([self._prompts.encode(prompt) for prompt in prompts])
        generator = torch.Generator("cpu").manual_seed(payload.seed)
        height, width = payload.height // self._vae_scale_factor, payload.width // self._vae_scale_factor
        tensors = torch.zeros(1 + REMEMBERED, self._latent_channels, height, width, device=self._device)
        noise = draw_noise(tensors.shape[1:], generator, self._device, prompt_embeds.dtype)
        tensors[0] = noise * plan.init_noise_sigma
        request.state = ImageState(
            plan=plan,
            prompt_embeds=prompt_embeds,
            guidance_scale=payload.guidance_scale,
            generator=generator,
            tensors=tensors,
            step_rows=computed_rows(payload),
        )

    def step(self, requests: Sequence[EngineRequest]) -> int:
        """Advance every request by one denoising step, in one forward; return the rows that padded it."""
        before = self._denoiser.row_count.padding
        self._denoiser.step([request.state for request in requests])
        return self._denoiser.row_count.padding - before

    def is_finished(self, request: EngineRequest) -> bool:
        """Return whether the last step is taken."""
        image: ImageState = request.state
        return image.is_denoised

    @torch.inference_mode()
    def finish(self, request: EngineRequest) -> GeneratedImage:
        """Decode the latents.

        Raises:
            InferenceFailed: A value of the image is not a finite number.
        """
        image: ImageState = request.state
        payload = request.payload
        assert isinstance(payload, ImageSpec)
        denoised_at = request.stepped_at or time.monotonic()
        pixels, flagged = self._decoder.decode(image.latents[None])
        started_at = request.started_at or request.submitted_at
        return GeneratedImage(
            pixels=pixels,
            flagged=flagged,
            prompt_cut=self._prompts.cut(payload.prompt),
            negative_prompt_cut=self._prompts.cut(payload.negative_prompt) if payload.is_guided else None,
            queued_ms=(started_at - request.submitted_at) * 1000,
            denoising_ms=(denoised_at - started_at) * 1000,
            decoding_ms=(time.monotonic() - denoised_at) * 1000,
        )
