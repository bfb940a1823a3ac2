"""One denoising step of many images in one UNet forward, with any timesteps, guidance and noise schedulers.

A batch consists of rows, not of requests: an image has two in a guided step, else one. Handles no queues, no text and
no pixels. Runs on the device thread.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from app.engine.diffusion.calibration import Calibration, calibrate, still_holds
from app.engine.diffusion.invariance import fix_timestep_rows
from app.engine.diffusion.noise_plan import NoisePlan
from app.engine.diffusion.noise_update import advance, scale_inputs
from app.engine.diffusion.options import MAX_ROWS, DenoisingOptions, RowPadding, options_for
from app.engine.kernels.compile import CompiledForward
from app.engine.kernels.cuda import Forward, GraphedForward, LaunchThrottle, cuda_mark, upload

logger = logging.getLogger(__name__)

# Time limit of the probe for which the first image of a new size waits.
FIRST_USE_LIMIT_S = 0.5

_CPU = torch.device("cpu")


@dataclass(slots=True)
class ImageState:
    """One image between two steps.

    Attributes:
        generator: Source of the noise that some noise schedulers add in a step; always on the CPU.
        step_rows: The rows of each step of the plan, 1 ... R; None: R of each.

    Shapes:
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
    step_index: int = 0

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
        forward: The UNet's, possibly compiled and recorded: samples (R, C, h, w), timesteps (R,) and embeddings
            (R, T, D) to (R, C, h, w); float32 except the embeddings.
        row_count: The rows of all forwards so far.
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
        if self.options.needs_probe:
            fix_timestep_rows(unet)
        self._unet = unet
        self._dtype = unet.dtype  # diffusers searches all modules for it, which takes 0.5 ms each time
        self._device = device
        self._embeds = embeds
        self._paddings: dict[tuple[int, int], RowPadding] = {}
        self.forward = self._make_forward()
        self._throttle = LaunchThrottle(partial(cuda_mark, device)) if device.type == "cuda" else None
        self.row_count = RowCount()

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
        forward = self._sample_forward(height, width)
        if known is not None and not self.options.needs_warmup and still_holds(forward, known):
            return self._use(height, width, known)
        return self._probe(forward, height, width, time_limit_s, warms_up=True)

    def _probe(
        self, forward: Callable[[int], torch.Tensor], height: int, width: int, time_limit_s: float, *, warms_up: bool
    ) -> Calibration:
        sizes, must_match = self.options.sizes, self.options.batch_invariant
        calibration = calibrate(forward, time_limit_s, sizes=sizes, must_match=must_match, warms_up=warms_up)
        return self._use(height, width, calibration)

    def _use(self, height: int, width: int, calibration: Calibration) -> Calibration:
        """Pad forwards of this latent size as the calibration says."""
        if self.options.batch_invariant and not calibration.is_invariant:
            logger.warning("On this device the position of a row changes its last bits: bytes depend on the batch.")
        self._paddings[height, width] = calibration.padding
        return calibration

    @torch.inference_mode()
    def step(self, images: Sequence[ImageState]) -> None:
        """Predict the noise of all images, guide it, and update the samples. If it raises, no image has changed.

        All images have one latent size. Only `LaunchThrottle` waits for a GPU, until the step before is done.

        Source:
            diffusers `StableDiffusionPipeline.__call__`, step 7; guidance as in arXiv:2207.12598, with the weight
            of arXiv:2205.11487.
        """
        states = torch.stack([image.tensors for image in images])
        scales, timesteps, guidances, coefficients = self._upload_numbers(images)
        inputs = scale_inputs(states[:, 0], scales)
        predicted = self._predict_noise(images, inputs, timesteps, guidances)
        with _rewound(images):
            noises = self._draw_noise(images)
            states = advance(states, predicted, noises, coefficients)
        for image, tensors in zip(images, states.unbind(), strict=True):
            image.tensors = tensors
            image.step_index += 1
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
        """Run the UNet over the rows of all images, and apply guidance.

        Shapes:
            inputs, returns: (B, C, h, w) float32.
            timesteps, guidances: (B,) float32.
        """
        owners = [index for index, image in enumerate(images) for _ in range(image.rows)]
        firsts = [owners.index(index) for index in range(len(images))]
        lasts = [first + image.rows - 1 for first, image in zip(firsts, images, strict=True)]
        blocks = self._padding(*inputs.shape[2:]).blocks(len(owners))
        rows = [row for block in blocks for row in block]
        self.row_count.wanted += len(owners)
        self.row_count.padding += len(rows) - len(owners)
        indices = [rows, [owners[row] for row in rows], firsts, lasts]
        uploaded = upload(torch.tensor([index for part in indices for index in part]), self._device)
        row_index, owner_index, first_index, last_index = torch.split(uploaded, [len(part) for part in indices])
        embeds = torch.cat([image.prompt_embeds[-image.rows :] for image in images])[row_index]
        parts = [
            torch.split(part, [len(block) for block in blocks])
            for part in (inputs[owner_index], timesteps[owner_index], embeds)
        ]
        outputs = torch.cat([self.forward(*block) for block in zip(*parts, strict=True)])
        unconditional, conditional = outputs[first_index], outputs[last_index]
        # For an image of one row both are that row, and so is the sum.
        return unconditional + guidances[:, None, None, None] * (conditional - unconditional)

    def _padding(self, height: int, width: int) -> RowPadding:
        """Return the padding of this latent size; probe it at the first use."""
        if (height, width) not in self._paddings:
            if self.options.needs_probe:
                # No warm-up, because an image waits: only invariance matters here, not the cost.
                self._probe(self._sample_forward(height, width), height, width, FIRST_USE_LIMIT_S, warms_up=False)
            else:
                self._paddings[height, width] = RowPadding(self.options.sizes)
        return self._paddings[height, width]

    def _sample_forward(self, height: int, width: int) -> Callable[[int], torch.Tensor]:
        """Return a function that runs a probe forward: its first and last row are the same, the others differ."""
        generator = torch.Generator("cpu").manual_seed(0)
        shape = (self._unet.config.in_channels, height, width)
        inputs = torch.stack([draw_noise(shape, generator, self._device, torch.float32) for _ in range(MAX_ROWS)])
        timesteps = torch.linspace(981, 1, MAX_ROWS, device=self._device).round()

        def forward(rows: int) -> torch.Tensor:
            taken = [*range(rows - 1), 0]
            outputs = self.forward(inputs[taken], timesteps[taken], self._embeds.expand(rows, -1, -1))
            return outputs[[0, -1]].cpu()  # waits for the device

        return forward

    def _make_forward(self) -> Forward:
        forward: Forward = self._run_unet
        if self.options.compiler:
            forward = CompiledForward(forward, self.options.compiler, self._unet.config.sample_size)
        return GraphedForward(forward, self.options.record) if self.options.record else forward

    def _run_unet(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the UNet over samples, timesteps and embeddings.

        Shapes:
            inputs: (R, C, h, w) float32, (R,) float32, (R, T, D).
            returns: (R, C, h, w) float32.
        """
        samples, timesteps, embeds = inputs
        outputs: torch.Tensor = self._unet(
            samples.to(self._dtype), timesteps, encoder_hidden_states=embeds, return_dict=False
        )[0]
        return outputs.float()

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


def draw_noise(
    shape: torch.Size | Sequence[int], generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Draw the noise of one image in the dtype of the model: another dtype gives other numbers.

    Shapes:
        shape: C, h, w; returns: (C, h, w) float32.

    Source:
        diffusers `randn_tensor`, as `prepare_latents` and the noise schedulers call it.
    """
    noise: torch.Tensor = randn_tensor((1, *shape), generator=generator, device=device, dtype=dtype)
    return noise[0].float()


@contextmanager
def _rewound(images: Sequence[ImageState]) -> Iterator[None]:
    """Restore the generators when the block raises: the step will be taken again."""
    drawing = [image.generator for image in images if image.plan.draws[image.step_index]]
    before = [generator.get_state() for generator in drawing]
    try:
        yield
    except BaseException:
        for generator, state in zip(drawing, before, strict=True):
            generator.set_state(state)
        raise
