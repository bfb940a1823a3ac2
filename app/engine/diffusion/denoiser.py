"""One denoising step of many images in one UNet forward, with any timesteps, guidance and noise schedulers.

A batch consists of rows, not of requests: an image has two in a guided step, else one. Handles no queues, no text and
no pixels. Runs on the device thread.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from app.engine.diffusion.calibration import MAX_TRIES, Calibration, Meter, Probe, still_holds
from app.engine.diffusion.image_state import ImageState, kept_x0s, rewound, with_mask_channels
from app.engine.diffusion.invariance import fix_timestep_rows
from app.engine.diffusion.noise.update import advance, draw_noise, scale_inputs
from app.engine.diffusion.options import MAX_ROWS, DenoisingOptions, RowPadding, options_for
from app.engine.diffusion.texts.kept_texts import KeptTexts
from app.engine.kernels.compile import CompiledForward
from app.engine.kernels.cpu_kept import KeepingForward, KeptRows, restore_timesteps
from app.engine.kernels.cuda import Forward, GraphedForward, LaunchThrottle, cuda_mark, upload

logger = logging.getLogger(__name__)

# Time limit of the probe for which the first image of a new size waits.
FIRST_USE_LIMIT_S = 0.5

# What that takes in all: the forwards that are not timed, and the one that exceeds the limit.
FIRST_USE_S = 1.5 * FIRST_USE_LIMIT_S

_CPU = torch.device("cpu")

# Height and width of the latents, and tokens of the prompts: what all rows of a forward share.
ForwardSize = tuple[int, int, int]


@dataclass(slots=True)
class RowCount:
    """Rows of all forwards so far, for metrics and benchmarks.

    Attributes:
        wanted: Rows of images.
        padding: Rows that padded forwards.
    """

    wanted: int = 0
    padding: int = 0


class Denoiser:
    """Advances images by one step, together.

    Attributes:
        options: How forwards are taken.
        forward: The UNet's, possibly compiled and recorded: samples (R, I, h, w), timesteps (R,) and embeddings
            (R, T, D) to (R, C, h, w); float32 except the embeddings.
        row_count: The rows of all forwards so far.
        kept_texts: Keys and values of the prompts of images that are not done.
        disturbed_sizes: Those that were measured while other processes had the cores, the first one first.
    """

    def __init__(
        self, unet: Any, device: torch.device, embeds: torch.Tensor, options: DenoisingOptions | None = None
    ) -> None:
        """Take a `UNet2DConditionModel` on the device, in eval mode.

        Args:
            unet: With `options.needs_probe` its timestep layers are replaced in place; its results stay those of the
                original for any fixed number of rows.
            device: The device of the UNet.
            embeds: The embedding of any prompt, for calibration.
            options: None: the options for the device, batch-invariant.

        Shapes:
            embeds: (1, T, D).
        """
        self.options = options or options_for(device, deterministic=True, graphs=False)
        self._unet = unet
        self._dtype = unet.dtype  # diffusers searches all modules for it, which takes 0.5 ms each time
        self._device = device
        self._embeds = embeds
        self._paddings: dict[ForwardSize, RowPadding] = {}
        self.disturbed_sizes: dict[ForwardSize, None] = {}
        self.forward = self.forward_of(unet, compiles=True)
        self._throttle = LaunchThrottle(partial(cuda_mark, device)) if device.type == "cuda" else None
        self.row_count = RowCount()
        self.kept_texts = KeptTexts(self.options.kept_text_bytes)

    def share_paddings(self, other: dict[ForwardSize, RowPadding] | None = None) -> dict[ForwardSize, RowPadding]:
        """Return what probes have found and will find; after taking over those of a UNet of this architecture."""
        self._paddings = self._paddings if other is None else other
        return self._paddings

    @torch.inference_mode()
    def calibrate(self, height: int, width: int, time_limit_s: float, known: Calibration | None = None) -> Calibration:
        """Measure forwards of this latent size, and find the numbers of rows that are batch-invariant.

        Args:
            height: Of the latents.
            width: Of the latents.
            time_limit_s: No further number of rows is tried after this many seconds of timed forwards.
            known: A calibration of an earlier start on such a device; used if forwards need no warm-up and two
                forwards confirm it.
        """
        size = self.size_of(height, width)
        if known is not None and not self.options.needs_warmup and still_holds(self._sample_forward(size), known):
            return self.use(size, known)
        return self.use(size, self.probe(size, time_limit_s).complete())

    def size_of(self, height: int, width: int) -> ForwardSize:
        """Return the size of forwards of such latents with prompts of the usual length."""
        return height, width, self._embeds.shape[1]

    def probe(
        self, size: ForwardSize, time_limit_s: float, *, warms_up: bool = True, max_tries: int = MAX_TRIES
    ) -> Probe:
        """Return the forwards that measure a size, for whoever runs them; arguments as for `Probe`."""
        options = self.options
        return Probe(
            self._sample_forward(size),
            time_limit_s,
            Meter() if self._device.type == "cpu" else Meter(without_core=lambda: 0.0),
            sizes=options.sizes,
            must_match=options.batch_invariant,
            warms_up=warms_up,
            max_tries=max_tries,
        )

    def use(self, size: ForwardSize, calibration: Calibration) -> Calibration:
        """Pad forwards of this latent size and these tokens as the calibration says."""
        if self.options.batch_invariant and not calibration.is_invariant:
            logger.warning("On this device the position of a row changes its last bits: bytes depend on the batch.")
        self._paddings[size] = calibration.padding
        self.disturbed_sizes.pop(size, None)
        if calibration.is_disturbed:
            self.disturbed_sizes[size] = None
        return calibration

    @torch.inference_mode()
    def step(self, images: Sequence[ImageState]) -> None:
        """Predict the noise of all images, guide it, and update the samples. If it raises, no image has changed.

        All images have one latent size and the same weights. Only `LaunchThrottle` waits for a GPU, until the step
        before is done.

        Source:
            diffusers `StableDiffusionPipeline.__call__`, step 7; guidance as in arXiv:2207.12598, with the weight
            of arXiv:2205.11487.
        """
        states = torch.stack([image.tensors for image in images])
        scales, timesteps, guidances, coefficients = self._upload_numbers(images)
        inputs = with_mask_channels(images, scale_inputs(states[:, 0], scales))
        predicted = self._predict_noise(images, inputs, timesteps, guidances)
        with rewound(images):
            noises = self._draw_noise(images)
            x0s = kept_x0s(images, states[:, 0], predicted)
            states = advance(states, predicted, noises, coefficients)
        for image, tensors in zip(images, states.unbind(), strict=True):
            if image.repainting is not None and image.plan.noise_levels is not None:
                tensors[0] = image.repainting.hold(tensors[0], image.plan.noise_levels[image.step_index + 1])
        for image, tensors in zip(images, states.unbind(), strict=True):
            image.tensors = tensors
            image.step_index += 1
            if image.is_denoised:
                image.texts = None
        for image, x0 in x0s:
            image.keeps_x0, image.x0 = False, x0
        if self._throttle is not None:
            self._throttle.step_launched()

    def _upload_numbers(self, images: Sequence[ImageState]) -> list[torch.Tensor]:
        """Copy the numbers of each image's step to the device, in one transfer.

        Shapes:
            returns: input scales, timesteps and guidance scales (B,); coefficients (B, 1 + H, 3 + H).
        """
        coefficients = torch.stack([image.plan.coefficients[image.step_index] for image in images])
        columns = [
            torch.stack([image.plan.input_scales[image.step_index] for image in images]),
            torch.stack([image.plan.timesteps[image.step_index].float() for image in images]),
            torch.tensor([image.guidance_scale for image in images]),
        ]
        numbers = upload(torch.cat([torch.stack(columns, 1), coefficients.flatten(1)], 1), self._device)
        return [*numbers[:, :3].unbind(1), numbers[:, 3:].reshape(coefficients.shape)]

    def _predict_noise(
        self, images: Sequence[ImageState], inputs: torch.Tensor, timesteps: torch.Tensor, guidances: torch.Tensor
    ) -> torch.Tensor:
        """Run the UNet over the rows of all images, in a forward for each length of prompts, and apply guidance.

        Shapes:
            inputs: (B, I, h, w) float32, of the UNet's input channels; returns: (B, C, h, w) float32.
            timesteps, guidances: (B,) float32.
        """
        lengths = [image.prompt_embeds.shape[1] for image in images]
        if len(set(lengths)) == 1:
            return self._predict_alike(images, inputs, timesteps, guidances)
        predicted = torch.empty_like(inputs[:, : images[0].latents.shape[0]])
        for length in sorted(set(lengths)):
            own = [index for index in range(len(images)) if lengths[index] == length]
            alike = [images[index] for index in own]
            predicted[own] = self._predict_alike(alike, inputs[own], timesteps[own], guidances[own])
        return predicted

    def _predict_alike(
        self, images: Sequence[ImageState], inputs: torch.Tensor, timesteps: torch.Tensor, guidances: torch.Tensor
    ) -> torch.Tensor:
        """Predict for images whose prompts have one length; see `_predict_noise`."""
        owners = [index for index, image in enumerate(images) for _ in range(image.rows)]
        firsts = [owners.index(index) for index in range(len(images))]
        lasts = [first + image.rows - 1 for first, image in zip(firsts, images, strict=True)]
        size = (*inputs.shape[2:], images[0].prompt_embeds.shape[1])
        blocks = self._padding(size).blocks(len(owners))
        rows = [row for block in blocks for row in block]
        self.row_count.wanted += len(owners)
        self.row_count.padding += len(rows) - len(owners)
        indices = [rows, [owners[row] for row in rows], firsts, lasts]
        uploaded = upload(torch.tensor([index for part in indices for index in part]), self._device)
        row_index, owner_index, first_index, last_index = torch.split(uploaded, [len(part) for part in indices])
        forward = images[0].forward or self.forward
        parts: list[Sequence[Any]] = [
            torch.split(inputs[owner_index], [len(block) for block in blocks]),
            torch.split(timesteps[owner_index], [len(block) for block in blocks]),
            self._texts(images, forward, blocks) or self._embeds_of(images, row_index, blocks),
        ]
        outputs = torch.cat([forward(*block) for block in zip(*parts, strict=True)])
        unconditional, conditional = outputs[first_index], outputs[last_index]
        # For an image of one row both are that row, and so is the sum.
        return unconditional + guidances[:, None, None, None] * (conditional - unconditional)

    @staticmethod
    def _embeds_of(
        images: Sequence[ImageState], row_index: torch.Tensor, blocks: Sequence[Sequence[int]]
    ) -> Sequence[torch.Tensor]:
        """Return the prompts of the rows of each forward. **Shapes**: (R, T, D) each."""
        embeds = torch.cat([image.prompt_embeds[-image.rows :] for image in images])[row_index]
        return torch.split(embeds, [len(block) for block in blocks])

    def _texts(
        self, images: Sequence[ImageState], forward: Forward, blocks: Sequence[Sequence[int]]
    ) -> list[KeptRows] | None:
        """Return the keys and values of the rows of each forward; None where some are not kept."""
        if not (isinstance(forward, KeepingForward) and forward.keeps_texts):
            return None
        for image in images:
            if image.texts is None:
                size = (*image.latents.shape[1:], image.prompt_embeds.shape[1])
                image.texts = self.kept_texts.keep(forward, image.prompt_embeds, self._padding(size).sizes[0])
        if not all(image.texts for image in images):
            return None
        texts = [text for image in images for text in (image.texts or ())[-image.rows :]]
        joined = [self.kept_texts.join([texts[row] for row in block]) for block in blocks]
        rows = [row for row in joined if row is not None]
        return rows if len(rows) == len(joined) else None

    def _padding(self, size: ForwardSize) -> RowPadding:
        """Return the padding of this size; probe it at the first use."""
        if size not in self._paddings:
            if self.options.needs_probe:
                # No warm-up, because an image waits: only invariance matters here, not the cost.
                self.use(size, self.probe(size, FIRST_USE_LIMIT_S, warms_up=False, max_tries=1).complete())
            else:
                self._paddings[size] = RowPadding(self.options.sizes)
        return self._paddings[size]

    def _sample_forward(self, size: ForwardSize) -> Callable[[int], torch.Tensor]:
        """Return a function that runs a probe forward: its first and last row are the same, the others differ."""
        height, width, tokens = size
        embeds = self._embeds.repeat(1, tokens // self._embeds.shape[1], 1)
        generator = torch.Generator("cpu").manual_seed(0)
        shape = (self._unet.config.in_channels, height, width)
        inputs = torch.stack([draw_noise(shape, generator, self._device, torch.float32) for _ in range(MAX_ROWS)])
        timesteps = torch.linspace(981, 1, MAX_ROWS, device=self._device).round()

        @torch.inference_mode()
        def forward(rows: int) -> torch.Tensor:
            taken = [*range(rows - 1), 0]
            outputs = self.forward(inputs[taken], timesteps[taken], embeds.expand(rows, -1, -1))
            return outputs[[0, -1]].cpu()  # waits for the device

        return forward

    def forward_of(self, unet: Any, *, compiles: bool = False) -> Forward:
        """Return the forward of a UNet of this architecture, which may share layers with the denoiser's own."""
        options = self.options
        restore_timesteps(unet)
        if options.needs_probe:
            fix_timestep_rows(unet)
        is_plain = self._device.type == "cpu" and options.record is None and options.compiler is None
        forward: Forward = KeepingForward(unet, self._dtype, keeps=options.keeps and is_plain)
        if compiles and options.compiler:
            forward = CompiledForward(forward, options.compiler, unet.config.sample_size)
        return GraphedForward(forward, options.record) if options.record else forward

    def _draw_noise(self, images: Sequence[ImageState]) -> torch.Tensor | None:
        """Draw fresh noise for the images whose noise scheduler adds some in this step. **Shapes**: (B, C, h, w)."""
        draws = [image.plan.draws[image.step_index] for image in images]
        if not any(draws):
            return None
        noises = [
            draw_noise(image.latents.shape, image.generator, _CPU, self._dtype)
            if is_drawn
            else torch.zeros(image.latents.shape)
            for image, is_drawn in zip(images, draws, strict=True)
        ]
        return upload(torch.stack(noises), self._device)
