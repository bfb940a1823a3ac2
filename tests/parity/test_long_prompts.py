"""Images whose prompts have different lengths share steps, and none changes a byte of another."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from app.engine.diffusion.runner import DiffusionRunner, cost_of
from app.engine.request import EngineRequest
from app.errors import Invalid
from app.image_spec import ImageSpec
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack
from tests.parity.conftest import CPU

FOX = ImageSpec("the red fox", num_inference_steps=4, height=64, width=64, scheduler="ddim")
LONG = ImageSpec(
    "(the red fox:1.3) " * 60,
    num_inference_steps=4,
    height=64,
    width=64,
    scheduler="euler",
    seed=3,
    prompt_syntax="weighted",
)
NEGATIVE = ImageSpec("a dog", "blue " * 100, 5.0, 4, 64, 64, 5, prompt_syntax="weighted")
UNGUIDED = ImageSpec("((dog)) in snow", "", 1.0, 4, 64, 64, 6, prompt_syntax="weighted", clip_skip=1)


@pytest.fixture(scope="module")
def runner(tiny_pack: ModelPack) -> DiffusionRunner:
    parts = load_diffusion(tiny_pack, CPU, torch.float32)
    runner = DiffusionRunner(**{name: getattr(parts, name) for name in parts.__dataclass_fields__}, device=CPU)
    runner.calibrate(64, 64, time_limit_s=60)
    return runner


def draw(runner: DiffusionRunner, specs: Sequence[ImageSpec]) -> list[np.ndarray]:
    requests = [EngineRequest("diffusion", spec, cost=cost_of(spec)) for spec in specs]
    for request in requests:
        runner.prepare(request)
    while going := [request for request in requests if not runner.is_finished(request)]:
        runner.step(going)
    return [runner.finish(request).pixels for request in requests]


def test_the_same_bytes_alone_and_beside_prompts_of_other_lengths(runner: DiffusionRunner) -> None:
    specs = [FOX, LONG, NEGATIVE, UNGUIDED]
    alone = [draw(runner, [spec])[0] for spec in specs]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 0], [2, 2, 0]):
        together = draw(runner, [specs[index] for index in order])
        assert all(np.array_equal(pixels, alone[index]) for pixels, index in zip(together, order, strict=True)), order
    assert len({pixels.tobytes() for pixels in alone}) == 4


def test_a_layer_that_is_not_there_is_refused_at_its_field(runner: DiffusionRunner) -> None:
    with pytest.raises(Invalid) as refused:
        draw(runner, [ImageSpec("a fox", num_inference_steps=1, height=64, width=64, clip_skip=11)])
    assert refused.value.errors[0].pointer == "#/clip_skip"
