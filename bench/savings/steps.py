"""Denoising steps with and without what is kept: images that begin together, and images that come and go."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from app.engine.diffusion.image_state import ImageState
from app.engine.diffusion.options import DenoisingOptions
from app.engine.diffusion.runner import DiffusionRunner, cost_of
from app.engine.request import EngineRequest
from app.image_spec import ImageSpec
from app.modelpacks.loading import DiffusionComponents
from bench.savings.turns import Ratio, Rounds, by_turns
from bench.speed.measure import make_specs

CPU = torch.device("cpu")
WAYS = ("in every step", "timesteps kept", "timesteps and texts kept")

# Of images that come and go: as in bench.generate's mixed requests.
MIXED_STEPS = (10, 20, 50)


def load_runners(parts: DiffusionComponents) -> dict[str, DiffusionRunner]:
    """Build a runner of the pack's models for each way; the models of `parts` themselves stay as they are."""
    options = (DenoisingOptions(keeps=False), DenoisingOptions(kept_text_bytes=0), DenoisingOptions())
    return {way: _runner(copy.deepcopy(parts), option) for way, option in zip(WAYS, options, strict=True)}


def _runner(parts: DiffusionComponents, options: DenoisingOptions) -> DiffusionRunner:
    return DiffusionRunner(
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        vae=parts.vae,
        noise_scheduler_config=parts.noise_scheduler_config,
        device=CPU,
        options=options,
    )


def prepared(runner: DiffusionRunner, specs: Sequence[ImageSpec]) -> list[EngineRequest]:
    """Encode the prompts and draw the noise, which is not timed."""
    requests = [EngineRequest("diffusion", spec, cost=cost_of(spec)) for spec in specs]
    for request in requests:
        runner.prepare(request)
    return requests


def compare_together(
    runners: dict[str, DiffusionRunner], num_images: int, steps: int, rounds: Rounds
) -> dict[str, Ratio]:
    """Step images that begin and end together."""
    specs = _specs(num_images, [steps])
    return by_turns({way: partial(_step_all, runner, specs) for way, runner in runners.items()}, rounds)


def compare_mixed(
    runners: dict[str, DiffusionRunner], at_once: int, num_images: int, rounds: Rounds
) -> dict[str, Ratio]:
    """Step images of 10, 20 and 50 steps, `at_once` at a time: one that ends is followed by the next."""
    specs = _specs(num_images, MIXED_STEPS)
    return by_turns({way: partial(_step_mixed, runner, specs, at_once) for way, runner in runners.items()}, rounds)


def are_equal(runners: dict[str, DiffusionRunner], num_images: int) -> bool:
    """Return whether all ways end in the same bytes."""
    ends = [[image.latents for image in _step_all(runner, _specs(num_images, [10]))] for runner in runners.values()]
    return all(torch.equal(own, other) for end in ends[1:] for own, other in zip(end, ends[0], strict=True))


def _specs(count: int, steps: Sequence[int]) -> list[ImageSpec]:
    specs = make_specs(("fox", "dog"), count, "ddim", "exact")
    return [replace(spec, num_inference_steps=steps[index % len(steps)]) for index, spec in enumerate(specs)]


def _step_all(runner: DiffusionRunner, specs: Sequence[ImageSpec]) -> list[ImageState]:
    requests = prepared(runner, specs)
    while not runner.is_finished(requests[0]):
        runner.step(requests)
    return [request.state for request in requests]


def _step_mixed(runner: DiffusionRunner, specs: Sequence[ImageSpec], at_once: int) -> None:
    waiting = prepared(runner, specs)
    running: list[EngineRequest] = []
    while waiting or running:
        while waiting and len(running) < at_once:
            running.append(waiting.pop(0))
        runner.step(running)
        running = [request for request in running if not runner.is_finished(request)]
