"""Stable Diffusion, one denoising step a call.

Our own sampling loop over diffusers' models: `StableDiffusionPipeline` keeps the guidance and the noise scheduler of
its one run on itself, so it can neither pause between steps nor serve two images. Knows nothing of queues; runs on
the device thread.
"""

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

from app.engine.decoding import ImageDecoder
from app.engine.noise_schedulers import make_noise_scheduler, set_timesteps
from app.engine.prompts import PromptEncoder
from app.engine.request import EngineRequest


@dataclass(frozen=True, slots=True)
class DiffusionPayload:
    """One image to make.

    Attributes:
        guidance_scale: Above 1 every step is guided (two rows); else the negative prompt has no effect.
        num_inference_steps: Denoising steps, >= 1.
        height: Pixels, a multiple of 8.
        width: Pixels, a multiple of 8.
        seed: 0 ... 2^53 - 1. torch's generator on the CPU uses the lowest 32 bits of it.
        noise_scheduler: A key of `NOISE_SCHEDULERS`.
    """

    prompt: str
    negative_prompt: str = ""
    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    height: int = 512
    width: int = 512
    seed: int = 0
    noise_scheduler: str = "pndm"


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One image and how it went.

    Attributes:
        pixels: (H, W, 3), uint8.
        flagged: The safety checker's verdict; None where the pack has no checker.
        prompt_cut: The end of the prompt that CLIP's 77 tokens left out.
        negative_prompt_cut: The same of the negative prompt; None too when it was not used.
        queued_ms: From submission to admission.
        denoising_ms: From admission to the end of the last step, the turns of others included.
        decoding_ms: Decoding and safety check.
    """

    pixels: np.ndarray
    flagged: bool | None
    prompt_cut: str | None
    negative_prompt_cut: str | None
    queued_ms: float
    denoising_ms: float
    decoding_ms: float


@dataclass(slots=True)
class _Sequence:
    """One image on its way.

    Shapes:
        prompt_embeds: (R, T, D); the unconditional row first when guided.
        latents: (1, C, h, w), model dtype.
    """

    # set once by prepare
    prompt_embeds: torch.Tensor
    guidance_scale: float
    noise_scheduler: Any
    timesteps: list[torch.Tensor]
    step_kwargs: dict[str, Any]
    prompt_cut: str | None
    negative_prompt_cut: str | None

    # moved on by step
    latents: torch.Tensor
    step_index: int = 0

    @property
    def is_guided(self) -> bool:
        """Whether a step takes two rows."""
        return self.prompt_embeds.shape[0] == 2


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
    ) -> None:
        """Take the pack's models, on the device and in eval mode.

        Args:
            tokenizer: A `CLIPTokenizer`.
            text_encoder: A `CLIPTextModel`; its dtype is the one the noise is drawn in.
            unet: A `UNet2DConditionModel` without `time_cond_proj_dim`.
            vae: An `AutoencoderKL`.
            noise_scheduler_config: The pack's `scheduler_config.json`.
            safety_checker: A `StableDiffusionSafetyChecker`, or None where the pack has none.
            feature_extractor: The `CLIPImageProcessor` that feeds the safety checker.
            device: Where the models are.
        """
        self._prompts = PromptEncoder(tokenizer, text_encoder, device)
        self._decoder = ImageDecoder(vae, safety_checker, feature_extractor)
        self._unet = unet
        self._vae_scale_factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self._noise_scheduler_config = dict(noise_scheduler_config)
        self._device = device

    @torch.inference_mode()
    def prepare(self, request: EngineRequest) -> None:
        """Encode the prompts, plan the timesteps and draw the initial noise.

        Raises:
            Invalid: The noise scheduler is unknown or cannot take that many steps.

        Source:
            diffusers `StableDiffusionPipeline.__call__`, steps 3 to 6.
        """
        payload = request.payload
        assert isinstance(payload, DiffusionPayload)
        noise_scheduler = make_noise_scheduler(payload.noise_scheduler, self._noise_scheduler_config)
        timesteps = set_timesteps(noise_scheduler, payload.num_inference_steps, self._device)
        is_guided = payload.guidance_scale > 1
        prompts = [payload.negative_prompt, payload.prompt] if is_guided else [payload.prompt]
        prompt_embeds = torch.cat([self._prompts.encode(prompt) for prompt in prompts])
        generator = torch.Generator("cpu").manual_seed(payload.seed)
        shape = (
            1,
            self._unet.config.in_channels,
            payload.height // self._vae_scale_factor,
            payload.width // self._vae_scale_factor,
        )
        noise = randn_tensor(shape, generator=generator, device=self._device, dtype=prompt_embeds.dtype)
        request.state = _Sequence(
            prompt_embeds=prompt_embeds,
            guidance_scale=payload.guidance_scale,
            noise_scheduler=noise_scheduler,
            timesteps=timesteps,
            step_kwargs=_step_kwargs(noise_scheduler, generator),
            prompt_cut=self._prompts.cut(payload.prompt),
            negative_prompt_cut=self._prompts.cut(payload.negative_prompt) if is_guided else None,
            latents=noise * noise_scheduler.init_noise_sigma,
        )

    @torch.inference_mode()
    def step(self, requests: Sequence[EngineRequest]) -> None:
        """Advance every request by one denoising step."""
        for request in requests:
            self._denoise(request.state)

    def is_finished(self, request: EngineRequest) -> bool:
        """Tell whether the last timestep is done."""
        sequence: _Sequence = request.state
        return sequence.step_index == len(sequence.timesteps)

    @torch.inference_mode()
    def finish(self, request: EngineRequest) -> GeneratedImage:
        """Decode the latents.

        Raises:
            InferenceFailed: The image holds values that are not numbers.
        """
        sequence: _Sequence = request.state
        denoised_at = time.monotonic()
        pixels, flagged = self._decoder.decode(sequence.latents)
        started_at = request.started_at or request.submitted_at
        return GeneratedImage(
            pixels=pixels,
            flagged=flagged,
            prompt_cut=sequence.prompt_cut,
            negative_prompt_cut=sequence.negative_prompt_cut,
            queued_ms=(started_at - request.submitted_at) * 1000,
            denoising_ms=(denoised_at - started_at) * 1000,
            decoding_ms=(time.monotonic() - denoised_at) * 1000,
        )

    def _denoise(self, sequence: _Sequence) -> None:
        """Predict the noise, guide it, and let the noise scheduler take it out.

        Source:
            diffusers `StableDiffusionPipeline.__call__`, step 7; guidance as in arXiv:2207.12598, with the weight
            of arXiv:2205.11487.
        """
        timestep = sequence.timesteps[sequence.step_index]
        rows = torch.cat([sequence.latents] * 2) if sequence.is_guided else sequence.latents
        rows = sequence.noise_scheduler.scale_model_input(rows, timestep)
        noise_pred = self._unet(
            rows, timestep, encoder_hidden_states=sequence.prompt_embeds, return_dict=False
        )[0]  # fmt: skip
        if sequence.is_guided:
            noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)
            noise_pred = noise_pred_uncond + sequence.guidance_scale * (noise_pred_text - noise_pred_uncond)
        sequence.latents = sequence.noise_scheduler.step(
            noise_pred, timestep, sequence.latents, **sequence.step_kwargs, return_dict=False
        )[0]
        sequence.step_index += 1


def _step_kwargs(noise_scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """Choose what this noise scheduler's `step` takes: `eta` (DDIM) and the generator (ancestral ones, LCM)."""
    accepted = inspect.signature(noise_scheduler.step).parameters
    offered: dict[str, Any] = {"eta": 0.0, "generator": generator}
    return {name: value for name, value in offered.items() if name in accepted}
