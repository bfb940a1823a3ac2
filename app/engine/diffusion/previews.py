"""Previews: the image x0 that a step predicts, and the linear map from its latents to colours.

The device thread only weighs two tensors for an image that is due (`predicted_images`) and hands the result over;
`LatentColours.pixels` runs where the caller wants it. The bytes of the image do not depend on previews. Handles no
files and no requests but their `on_step`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

OnPreview = Callable[[int, int, torch.Tensor], None]

# How much of each scale of noise, by its cells a side, `smooth_latents` has.
_SCALE_WEIGHTS = {1: 0.7, 2: 0.5, 4: 0.4, 16: 0.2}


@dataclass(frozen=True, slots=True)
class LatentColours:
    """The map from a latent pixel to its colour: `latent @ matrix + bias`, 0 to 1 in each of R, G and B.

    Shapes:
        matrix: (C, 3) float32, for latents as the UNet has them (scaled).
        bias: (3,) float32.
    """

    matrix: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def pixels(self, latents: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """Return the colours of latents; any thread.

        Shapes:
            latents: (C, h, w); returns: (h, w, 3).
        """
        colours = np.tensordot(latents, self.matrix, axes=(0, 0)) + self.bias
        rounded: npt.NDArray[np.uint8] = np.nan_to_num(np.clip(colours, 0, 1) * 255).round().astype(np.uint8)
        return rounded


def fit_colours(latents: npt.NDArray[np.floating], pictures: npt.NDArray[np.floating]) -> LatentColours:
    """Fit the map by least squares.

    Shapes:
        latents: (N, C, h, w).
        pictures: (N, H, W, 3), 0 to 1; H and W are multiples of h and w, and each block's mean is fitted.
    """
    channels, height, width = latents.shape[1:]
    blocks = (height, pictures.shape[1] // height, width, pictures.shape[2] // width)
    colours = pictures.reshape(len(pictures), *blocks, 3).mean(axis=(2, 4)).reshape(-1, 3)
    columns = np.moveaxis(latents, 1, -1).reshape(-1, channels)
    columns = np.concatenate([columns, np.ones_like(columns[:, :1])], axis=1)
    weights = np.linalg.lstsq(columns.astype(np.float64), colours.astype(np.float64), rcond=None)[0]
    return LatentColours(weights[:-1].astype(np.float32), weights[-1].astype(np.float32))


class PreviewTap:
    """An image's `on_step` that also gets what every n-th step predicts.

    Attributes:
        x0: The prediction of the step that was just taken; written by the runner, taken by the call.

    Shapes:
        x0: (C, h, w) float32, on the device.
    """

    def __init__(self, every: int, on_step: Callable[[int, int], object], on_preview: OnPreview) -> None:
        """Report to two functions of the device thread, which must not block.

        Args:
            every: Which steps are due: every n-th, n >= 1.
            on_step: Called after steps that are not due, with the steps done and those to do in all.
            on_preview: Called after steps that are due, with the same and with `x0`.
        """
        self.x0: torch.Tensor | None = None
        self._every = every
        self._on_step = on_step
        self._on_preview = on_preview

    def is_due(self, done: int) -> bool:
        """Return whether the step is due after which `done` steps are done."""
        return done % self._every == 0

    def __call__(self, done: int, steps: int) -> None:
        """Report the step."""
        x0, self.x0 = self.x0, None
        if x0 is None:
            self._on_step(done, steps)
        else:
            self._on_preview(done, steps, x0)


def predicted_images(
    samples: torch.Tensor, outputs: torch.Tensor, weights: Sequence[torch.Tensor], indices: Sequence[int]
) -> list[torch.Tensor]:
    """Return the images x0 that some rows of a step predict, each in memory of its own.

    Args:
        samples: The latents before the step.
        outputs: The guided outputs of the model.
        weights: `NoisePlan.x0_weights` of each of these rows' steps.
        indices: The rows.

    Shapes:
        samples, outputs: (B, C, h, w); weights: (2,) each; returns: (C, h, w) each, float32.
    """
    pairs = torch.stack(list(weights)).tolist()
    return [
        torch.add(samples[index] * of_sample, outputs[index], alpha=of_output)
        for index, (of_sample, of_output) in zip(indices, pairs, strict=True)
    ]


def smooth_latents(channels: int) -> torch.Tensor:
    """Return latents like those of pictures, always the same: noise of four scales, summed.

    Shapes:
        returns: (8, C, 16, 16) float32.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    total = torch.zeros(8, channels, 16, 16)
    for side, weight in _SCALE_WEIGHTS.items():
        noise = torch.randn(8, channels, side, side, generator=generator)
        total += weight * functional.interpolate(noise, size=(16, 16), mode="bilinear")
    return total
