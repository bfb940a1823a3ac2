"""One denoising step of many images in one UNet forward, whatever their timesteps, guidance and noise schedulers.

A batch is made of rows, not of requests: a guided image has two, an unguided one has one. Knows nothing of queues,
prompts as text, or pixels. Runs on the device thread.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils.torch_utils import randn_tensor

from app.engine.calibration import MOST_ROWS, Calibration, calibrate
from app.engine.invariance import RowPadding, fix_timestep_rows
from app.engine.noise_plan import NoisePlan
from app.engine.noise_update import advance, scale_inputs

# The first image of a size waits this long at most for the look at it.
FIRST_USE_LIMIT_S = 0.5


@dataclass(slots=True)
class ImageState:
    """One image on its way.

    Attributes:
        generator: Gives the noise that some noise schedulers add in a step; on the CPU, whatever the device.

    Shapes:
        prompt_embeds: (R, T, D); R = 2 when guided, the unconditional row first, else 1.
        tensors: (1 + H, C, h, w) float32, the latents first; see `NoisePlan`.
    """

    plan: NoisePlan
    prompt_embeds: torch.Tensor
    guidance_scale: float
    generator: torch.Generator
    tensors: torch.Tensor
    step_index: int = 0

    @property
    def latents(self) -> torch.Tensor:
        """The sample as it is now. **Shapes**: (C, h, w) float32."""
        return self.tensors[0]

    @property
    def rows(self) -> int:
        """How many rows a step takes."""
        return self.prompt_embeds.shape[0]

    @property
    def is_denoised(self) -> bool:
        """Whether the last step is taken."""
        return self.step_index == len(self.plan.draws)


class Denoiser:
    """Takes images one step on, together."""

    def __init__(self, unet: Any, device: torch.device, embeds: torch.Tensor) -> None:
        """Take a `UNet2DConditionModel` on the device, in eval mode; its timestep layers are made row-invariant.

        Args:
            unet: Changed in place; its results stay those of the original for any fixed number of rows.
            device: Where it is.
            embeds: Of any prompt; calibration uses it.

        Shapes:
            embeds: (1, T, D).
        """
        fix_timestep_rows(unet)
        self._unet = unet
        self._device = device
        self._embeds = embeds
        self._paddings: dict[tuple[int, int], RowPadding] = {}

    @torch.inference_mode()
    def calibrate(self, height: int, width: int, time_limit_s: float) -> Calibration:
        """Measure forwards of this latent size, and find what keeps its rows independent of each other."""
        generator = torch.Generator("cpu").manual_seed(0)
        shape = (self._unet.config.in_channels, height, width)
        inputs = torch.stack([draw_noise(shape, generator, self._device, torch.float32) for _ in range(MOST_ROWS)])
        timesteps = torch.linspace(981, 1, MOST_ROWS, device=self._device).round()

        def forward(rows: int) -> torch.Tensor:
            # .cpu() waits for the device
            return self._forward(inputs[:rows], timesteps[:rows], self._embeds.expand(rows, -1, -1))[0].cpu()

        # On a GPU kernels change with the number of rows; fixing it would make a lone image pay for eight rows.
        calibration = calibrate(forward, time_limit_s, must_match=self._device.type == "cpu")
        self._paddings[height, width] = calibration.padding
        return calibration

    @torch.inference_mode()
    def step(self, images: Sequence[ImageState]) -> None:
        """Predict the noise of all images, guide it, and take it out. If it raises, no image has changed.

        All images are of one latent size.

        Source:
            diffusers `StableDiffusionPipeline.__call__`, step 7; guidance as in arXiv:2207.12598, with the weight
            of arXiv:2205.11487.
        """
        states = torch.stack([image.tensors for image in images])
        predicted = self._predict_noise(images, states[:, 0])
        coefficients = torch.stack([image.plan.coefficients[image.step_index] for image in images])
        with _rewound(images):
            noises = self._draw_noise(images)
            states = advance(states, predicted, noises, coefficients.to(self._device))
        for image, tensors in zip(images, states.unbind(), strict=True):
            image.tensors = tensors
            image.step_index += 1

    def _predict_noise(self, images: Sequence[ImageState], samples: torch.Tensor) -> torch.Tensor:
        """Run the UNet over the rows of all images.

        Shapes:
            samples, returns: (B, C, h, w) float32.
        """
        first_rows: list[int] = []
        owners: list[int] = []
        for index, image in enumerate(images):
            first_rows.append(len(owners))
            owners += [index] * image.rows
        scales = self._gather(images, lambda image: image.plan.input_scales)
        timesteps = self._gather(images, lambda image: image.plan.timesteps.float())
        inputs = scale_inputs(samples, scales)
        embeds = torch.cat([image.prompt_embeds for image in images])
        inputs, timesteps = inputs[owners], timesteps[owners]
        blocks = self._padding(*samples.shape[2:]).blocks(len(owners))
        outputs = torch.cat([self._forward(inputs[rows], timesteps[rows], embeds[rows]) for rows in blocks])
        last_rows = [first + image.rows - 1 for first, image in zip(first_rows, images, strict=True)]
        unconditional, conditional = outputs[first_rows], outputs[last_rows]
        guidance = torch.tensor([image.guidance_scale for image in images], device=self._device)[:, None, None, None]
        # Where both are the same row, nothing is added to it.
        return unconditional + guidance * (conditional - unconditional)

    def _gather(self, images: Sequence[ImageState], table: Callable[[ImageState], torch.Tensor]) -> torch.Tensor:
        """Read each image's table at its step. **Shapes**: (B,), on the device."""
        return torch.stack([table(image)[image.step_index] for image in images]).to(self._device)

    def _padding(self, height: int, width: int) -> RowPadding:
        """Look up, or find out once, how rows of this latent size are put into forwards."""
        if (height, width) not in self._paddings:
            self.calibrate(height, width, FIRST_USE_LIMIT_S)
        return self._paddings[height, width]

    def _forward(self, inputs: torch.Tensor, timesteps: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
        """Run the UNet.

        Shapes:
            inputs, returns: (R, C, h, w) float32.
            timesteps: (R,) float32.
            embeds: (R, T, D).
        """
        outputs: torch.Tensor = self._unet(
            inputs.to(self._unet.dtype), timesteps, encoder_hidden_states=embeds, return_dict=False
        )[0]
        return outputs.float()

    def _draw_noise(self, images: Sequence[ImageState]) -> torch.Tensor | None:
        """Draw fresh noise for the images whose noise scheduler adds some in this step. **Shapes**: (B, C, h, w)."""
        draws = [image.plan.draws[image.step_index] for image in images]
        if not any(draws):
            return None
        return torch.stack(
            [
                draw_noise(image.latents.shape, image.generator, self._device, self._unet.dtype)
                if is_drawn
                else torch.zeros_like(image.latents)
                for image, is_drawn in zip(images, draws, strict=True)
            ]
        )


def draw_noise(
    shape: torch.Size | Sequence[int], generator: torch.Generator, device: torch.device, dtype: torch.dtype
) -> torch.Tensor:
    """Draw the noise of one image in the dtype of the model: another dtype is another stream of numbers.

    Shapes:
        shape: C, h, w; returns: (C, h, w) float32.

    Source:
        diffusers `randn_tensor`, as `prepare_latents` and the noise schedulers call it.
    """
    noise: torch.Tensor = randn_tensor((1, *shape), generator=generator, device=device, dtype=dtype)
    return noise[0].float()


@contextmanager
def _rewound(images: Sequence[ImageState]) -> Iterator[None]:
    """Put the generators back when the block raises: the step will be taken again."""
    drawing = [image.generator for image in images if image.plan.draws[image.step_index]]
    before = [generator.get_state() for generator in drawing]
    try:
        yield
    except BaseException:
        for generator, state in zip(drawing, before, strict=True):
            generator.set_state(state)
        raise
