"""Stable Diffusion as a model of the engine: many images share each denoising step.

A sampling loop of its own over diffusers' models: `StableDiffusionPipeline` keeps the guidance and the noise scheduler
of its one run as attributes, so it can neither pause between steps nor serve two images that differ in them. Handles no
queues. Runs on the device thread; `calibrate` on the loader thread.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from app.engine.diffusion.calibration import Calibration, Probe
from app.engine.diffusion.decoder import ImageDecoder
from app.engine.diffusion.denoiser import Denoiser, ForwardSize
from app.engine.diffusion.encoder import ImageEncoder, ImageToImage
from app.engine.diffusion.image_state import ImageState
from app.engine.diffusion.image_to_image import Beginning, begin, begin_in_mask
from app.engine.diffusion.noise.plan import REMEMBERED, Schedule, make_noise_plan
from app.engine.diffusion.noise.update import draw_noise
from app.engine.diffusion.options import DenoisingOptions, RowPadding
from app.engine.diffusion.previews import LatentColours, PreviewTap, fit_colours, smooth_latents
from app.engine.diffusion.texts.prompts import PromptEncoder, Reading
from app.engine.diffusion.variants import RewrittenPrompts, Variant, Variants
from app.engine.kernels.cpu_diffusion import optimize_diffusion
from app.engine.request import EngineRequest, RequestCost
from app.error_codes import ErrorCode
from app.errors import Invalid
from app.image_spec import SIDE_MULTIPLE, AdapterSet, ImageSpec

# Bounds the delay of a node's start; the result is stored for the next one. Enough for the demo pack to get beyond the
# sixteen rows of eight guided images on two cores.
CALIBRATION_LIMIT_S = 2.0

# The cache of the prompts' embeddings of each adapter set.
VARIANT_CACHE_BYTES = 8 * 2**20


def cost_of(spec: ImageSpec) -> RequestCost:
    """Return the device work of an image: its steps are those that run the UNet."""
    rows = computed_rows(spec)
    return RequestCost(
        shape=(spec.height // SIDE_MULTIPLE, spec.width // SIDE_MULTIPLE),
        rows=max(rows),
        steps=len(rows),
        finishes_separately=True,
        step_rows=rows if min(rows) < max(rows) else None,
        weights=(spec.model, spec.adapters) if spec.model else spec.adapters or None,
        network=spec.model or "",
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
        first_step=spec.first_step,
    )


def spec_of(payload: object) -> ImageSpec:
    """Return what a request's payload, an `ImageSpec` or an `ImageToImage`, asks for."""
    spec = payload.spec if isinstance(payload, ImageToImage) else payload
    assert isinstance(spec, ImageSpec)
    return spec


def reading_of(spec: ImageSpec) -> Reading:
    """Return how an image's prompts are read."""
    return Reading(is_weighted=spec.prompt_syntax == "weighted", clip_skip=spec.clip_skip)


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """One image, and the times of its phases.

    Attributes:
        pixels: (H, W, 3), uint8.
        flagged: Whether the safety checker flagged the image; None where the pack has no checker.
        prompt_cut: The end of the prompt that exceeds the tokens that are used; None if all fits.
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
            unet: A `UNet2DConditionModel` without `time_cond_proj_dim`, with input channels for latents alone, or for
                latents, a mask and the latents of what is outside of it; on the CPU its layers are changed in place.
            vae: An `AutoencoderKL`; on the CPU its layers are changed in place.
            noise_scheduler_config: The pack's `scheduler_config.json`.
            safety_checker: A `StableDiffusionSafetyChecker`, or None where the pack has none.
            feature_extractor: The `CLIPImageProcessor` that feeds the safety checker.
            device: The device of the models.
            options: How the UNet's forwards are taken; None: the options for the device.
        """
        if device.type == "cpu":
            optimize_diffusion(unet)
            optimize_diffusion(vae.encoder)
            optimize_diffusion(vae.decoder)
        prompts = PromptEncoder(tokenizer, text_encoder, device)
        with torch.inference_mode():
            self._denoiser = Denoiser(unet, device, prompts.encode(""), options)
        self._variants = Variants(Variant(prompts, forward=None))
        self._unet = unet
        compiler = self._denoiser.options.compiler
        self._decoder = ImageDecoder(vae, safety_checker, feature_extractor, compiler, unet.config.sample_size)
        self._encoder = ImageEncoder(vae, device)
        self._latent_channels = vae.config.latent_channels
        self._needs_mask = unet.config.in_channels > vae.config.latent_channels
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

    def size_of(self, height: int, width: int) -> ForwardSize:
        """Return the size of forwards for a picture of so many pixels."""
        return self._denoiser.size_of(height // self._vae_scale_factor, width // self._vae_scale_factor)

    @property
    def disturbed_size(self) -> ForwardSize | None:
        """A size that was measured while other processes had the cores; None: there is none."""
        return next(iter(self._denoiser.disturbed_sizes), None)

    def probe(self, size: ForwardSize, /) -> Probe:
        """Return the forwards that measure a size, for the device thread to run one at a time."""
        return self._denoiser.probe(size, CALIBRATION_LIMIT_S, max_tries=1)

    def use(self, size: ForwardSize, calibration: Calibration, /) -> None:
        """Take forwards of a size as measured, from the next step on; the device thread alone."""
        self._denoiser.use(size, calibration)

    def share_paddings(self, other: dict[ForwardSize, RowPadding] | None = None) -> dict[ForwardSize, RowPadding]:
        """Return which forwards are batch-invariant; see `Denoiser.share_paddings`."""
        return self._denoiser.share_paddings(other)

    def put_variant(
        self, adapters: AdapterSet, *, tokenizer: Any, text_encoder: Any, unet: Any, rewrite: Callable[[str], str]
    ) -> None:
        """Let images with these adapters use other models, until `drop_variant`. Any thread but the device thread.

        Args:
            adapters: Not empty.
            tokenizer: A `CLIPTokenizer`.
            text_encoder: A `CLIPTextModel`.
            unet: Of the architecture of the runner's; may share layers with it, as they are now. On the CPU its own
                layers are changed in place.
            rewrite: From a prompt to the text that the tokenizer gets.
        """
        is_own = unet is self._unet
        if self._device.type == "cpu" and not is_own:
            optimize_diffusion(unet)
        prompts = RewrittenPrompts(
            PromptEncoder(tokenizer, text_encoder, self._device, cache_bytes=VARIANT_CACHE_BYTES), rewrite
        )
        forward = None if is_own else self._denoiser.forward_of(unet)
        self._variants.put(adapters, Variant(prompts, forward))

    def drop_variant(self, adapters: AdapterSet) -> None:
        """Forget what `put_variant` has put; images that run keep it until they are done."""
        self._variants.drop(adapters)

    @torch.inference_mode()
    def fit_colours(self) -> LatentColours:
        """Fit the colours of previews to a few decoded latents: seeded noise that is smooth at several scales."""
        latents = smooth_latents(self._latent_channels).to(self._device)
        pictures = np.stack([self._decoder.picture(one[None]) for one in latents])
        return fit_colours(latents.cpu().numpy(), pictures)

    @torch.inference_mode()
    def prepare(self, request: EngineRequest) -> None:
        """Encode the prompts and the initial image, plan the steps and draw the initial noise.

        Raises:
            Invalid: The noise scheduler is unknown or does not support that many steps, the text encoder has no such
                layer, adapters are not loaded, or the UNet needs a mask and there is none.

        Source:
            diffusers `StableDiffusionPipeline.__call__`, steps 3 to 6.
        """
        payload = spec_of(request.payload)
        self._refuse_without_mask(request.payload)
        plan = make_noise_plan(
            payload.scheduler, payload.num_inference_steps, self._noise_scheduler_config, schedule_of(payload)
        )
        variant = self._variants.find(payload.adapters)
        prompts = [payload.negative_prompt, payload.prompt] if payload.is_guided else [payload.prompt]
        prompt_embeds = variant.prompts.encode_alike(prompts, reading_of(payload))
        generator = torch.Generator("cpu").manual_seed(payload.seed)
        height, width = payload.height // self._vae_scale_factor, payload.width // self._vae_scale_factor
        tensors = torch.zeros(1 + REMEMBERED, self._latent_channels, height, width, device=self._device)
        if isinstance(request.payload, ImageToImage):
            start = begin_in_mask if self._needs_mask else begin
            beginning = start(self._encoder, request.payload, plan, generator, self._device, prompt_embeds.dtype)
        else:
            noise = draw_noise(tensors.shape[1:], generator, self._device, prompt_embeds.dtype)
            beginning = Beginning(noise * plan.init_noise_sigma)
        tensors[0] = beginning.latents
        request.state = ImageState(
            plan=plan,
            prompt_embeds=prompt_embeds,
            guidance_scale=payload.guidance_scale,
            generator=generator,
            tensors=tensors,
            step_rows=computed_rows(payload),
            repainting=beginning.repainting,
            mask_channels=beginning.mask_channels,
            forward=variant.forward,
        )

    def _refuse_without_mask(self, payload: object) -> None:
        """Refuse an image without a mask where the UNet has channels for one."""
        if self._needs_mask and not (isinstance(payload, ImageToImage) and payload.mask is not None):
            detail = "This model repaints parts of pictures. Give init_image and mask, or name another model."
            raise Invalid(detail, code=ErrorCode.MASK_MISSING)

    def step(self, requests: Sequence[EngineRequest]) -> int:
        """Advance every request by one denoising step, in one forward; return the rows that padded it."""
        before = self._denoiser.row_count.padding
        taps = [(request.state, request.on_step) for request in requests if isinstance(request.on_step, PreviewTap)]
        for image, tap in taps:
            image.keeps_x0 = tap.is_due(image.step_index + 1)
        self._denoiser.step([request.state for request in requests])
        for image, tap in taps:
            tap.x0, image.x0 = image.x0, None
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
        payload = spec_of(request.payload)
        reading = reading_of(payload)
        denoised_at = request.stepped_at or time.monotonic()
        prompts = self._variants.find(payload.adapters).prompts
        pixels, flagged = self._decoder.decode(image.latents[None])
        started_at = request.started_at or request.submitted_at
        return GeneratedImage(
            pixels=pixels,
            flagged=flagged,
            prompt_cut=prompts.cut(payload.prompt, reading),
            negative_prompt_cut=prompts.cut(payload.negative_prompt, reading) if payload.is_guided else None,
            queued_ms=(started_at - request.submitted_at) * 1000,
            denoising_ms=(denoised_at - started_at) * 1000,
            decoding_ms=(time.monotonic() - denoised_at) * 1000,
        )
