"""Images of the demo pack with what every step predicts, drawn by the node's own runner without a queue.

Prints nothing and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from app.engine.diffusion.previews import LatentColours, PreviewTap, fit_colours
from app.engine.diffusion.runner import DiffusionRunner, cost_of
from app.engine.request import EngineRequest
from app.image_spec import ImageSpec
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack
from bench.speed.measure import make_specs

BATCH = 8
SCHEDULERS = ("pndm", "ddim", "dpmpp_2m")


@dataclass(frozen=True)
class Drawn:
    """One image.

    Attributes:
        spec: What it was drawn from.

    Shapes:
        predicted: (S, C, h, w) float32, of every step that ran the model.
        latents: (C, h, w) float32, the last ones.
        pixels: (H, W, 3) uint8.
    """

    spec: ImageSpec
    predicted: np.ndarray
    latents: np.ndarray
    pixels: np.ndarray

    @property
    def half_way(self) -> np.ndarray:
        """What the last step predicts that ran the model in the first half of the schedule."""
        rows = self.spec.step_rows
        predicted: np.ndarray = self.predicted[sum(row > 0 for row in rows[: len(rows) // 2]) - 1]
        return predicted

    @property
    def small(self) -> np.ndarray:
        """The picture at the latents' size, each pixel the mean of its block. **Shapes**: (h, w, 3), 0 to 255."""
        height, width = self.latents.shape[1:]
        blocks = (height, self.pixels.shape[0] // height, width, self.pixels.shape[1] // width, 3)
        means: np.ndarray = self.pixels.reshape(blocks).astype(np.float64).mean(axis=(1, 3))
        return means


def load_runner(pack: ModelPack) -> DiffusionRunner:
    """Load the pack's diffusion model on the CPU."""
    parts = load_diffusion(pack, torch.device("cpu"), torch.float32)
    return DiffusionRunner(
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        vae=parts.vae,
        noise_scheduler_config=parts.noise_scheduler_config,
        device=torch.device("cpu"),
    )


def specs_of(classes: Sequence[str], count: int, steps: int, speed: Any = "exact") -> list[ImageSpec]:
    """Return so many prompts of `bench.speed`, `BATCH` images after the other with each noise scheduler in turn."""
    specs = make_specs(classes, count, SCHEDULERS[0], speed)
    return [
        replace(spec, num_inference_steps=steps, scheduler=SCHEDULERS[index // BATCH % len(SCHEDULERS)])
        for index, spec in enumerate(specs)
    ]


def draw(runner: DiffusionRunner, specs: Sequence[ImageSpec]) -> Iterator[Drawn]:
    """Draw the images, `BATCH` at a time."""
    for start in range(0, len(specs), BATCH):
        taps = [_Keeping() for _ in specs[start : start + BATCH]]
        requests = [
            EngineRequest("diffusion", spec, cost=cost_of(spec), on_step=tap.tap)
            for spec, tap in zip(specs[start : start + BATCH], taps, strict=True)
        ]
        for request in requests:
            runner.prepare(request)
        while going := [request for request in requests if not runner.is_finished(request)]:
            runner.step(going)
            for request in going:
                request.steps_done += 1
                if request.on_step is not None:
                    request.on_step(request.steps_done, request.cost.steps)
        for request, tap in zip(requests, taps, strict=True):
            latents = request.state.latents.numpy().copy()
            assert isinstance(request.payload, ImageSpec)
            yield Drawn(request.payload, np.stack(tap.predicted), latents, runner.finish(request).pixels)


def fit(drawn: Sequence[Drawn]) -> LatentColours:
    """Fit the colours on the last latents of images and their pictures."""
    latents = np.stack([image.latents for image in drawn])
    return fit_colours(latents, np.stack([image.pixels / 255 for image in drawn]))


def psnr_db(colours: LatentColours, latents: np.ndarray, small: np.ndarray) -> float:
    """Return the PSNR of a preview to the downsized picture, in dB."""
    error = float(np.mean((colours.pixels(latents) - small) ** 2)) / 255**2
    return float(-10 * np.log10(error))


class _Keeping:
    """Keeps what every step of an image predicts."""

    def __init__(self) -> None:
        self.predicted: list[np.ndarray] = []
        self.tap = PreviewTap(1, lambda *_: None, lambda _done, _steps, x0: self.predicted.append(x0.numpy()))
