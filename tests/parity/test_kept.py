"""What is computed once, against the same computed in every step: no byte differs, whatever images are made from."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from app.engine.diffusion.encoder import ImageToImage
from app.engine.diffusion.options import DenoisingOptions
from app.engine.diffusion.runner import DiffusionRunner, cost_of, spec_of
from app.engine.diffusion.texts.kept_texts import KeptTexts
from app.engine.kernels.cpu_kept import KeepingForward, KeptTimesteps
from app.engine.request import EngineRequest
from app.image_spec import ImageSpec
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.pack import ModelPack
from tests.parity.conftest import CPU
from tests.parity.test_cpu_diffusion import HALF, needs_bfloat16
from tests.parity.test_diffusion import make_runner
from tests.parity.test_image_to_image import left_half, payload_of

FOX = ImageSpec("the red fox", num_inference_steps=10, height=64, width=48, seed=3, scheduler="ddim")

# Of one size, so that all of them can share their forwards.
PAYLOADS: dict[str, ImageSpec | ImageToImage] = {
    "guided": FOX,
    "negative": replace(FOX, negative_prompt="a dog", seed=4, scheduler="pndm"),
    "unguided": replace(FOX, guidance_scale=1.0, seed=5, scheduler="euler"),
    "interval": replace(FOX, guidance_interval=(0.0, 0.5), seed=6),
    "balanced": replace(FOX, speed="balanced", num_inference_steps=20, seed=7, scheduler="dpmpp_2m"),
    "ancestral": replace(FOX, scheduler="euler_a", seed=8),
    "fractional timesteps": replace(FOX, scheduler="dpmpp_2m_karras", seed=9),
    "weighted": replace(FOX, prompt="(the red fox:1.3) " * 60, prompt_syntax="weighted", seed=10),
    "clip_skip": replace(FOX, clip_skip=1, seed=11),
    "from a picture": payload_of("ddim", 0.6),
    "within a mask": payload_of("pndm", 0.8, mask=left_half()),
}


def loaded(pack: ModelPack, dtype: torch.dtype, **options: Any) -> DiffusionRunner:
    parts: DiffusionComponents = load_diffusion(pack, CPU, dtype)
    return make_runner(parts, options=DenoisingOptions(**options))


@pytest.fixture(scope="module")
def keeping(tiny_pack: ModelPack) -> DiffusionRunner:
    return loaded(tiny_pack, torch.float32)


@pytest.fixture(scope="module")
def before(tiny_pack: ModelPack) -> DiffusionRunner:
    """A runner that computes everything in every step, as all did before."""
    return loaded(tiny_pack, torch.float32, keeps=False)


def begin(runner: DiffusionRunner, payloads: Sequence[ImageSpec | ImageToImage]) -> list[EngineRequest]:
    requests = [EngineRequest("diffusion", payload, cost=cost_of(spec_of(payload))) for payload in payloads]
    for request in requests:
        runner.prepare(request)
    return requests


def step_on(runner: DiffusionRunner, requests: Sequence[EngineRequest]) -> None:
    while going := [request for request in requests if not runner.is_finished(request)]:
        runner.step(going)


def drawn(runner: DiffusionRunner, *payloads: ImageSpec | ImageToImage) -> list[bytes]:
    requests = begin(runner, payloads)
    step_on(runner, requests)
    return [request.state.latents.numpy().tobytes() for request in requests]


def kept(runner: DiffusionRunner) -> KeptTexts:
    return runner._denoiser.kept_texts


@contextmanager
def counted(layers: Sequence[nn.Module]) -> Iterator[list[int]]:
    """Collect how many rows each call of the layers has."""
    calls: list[int] = []
    handles = [layer.register_forward_pre_hook(lambda _, inputs: calls.append(len(inputs[0]))) for layer in layers]
    yield calls
    for handle in handles:
        handle.remove()


def projections(runner: DiffusionRunner) -> list[nn.Module]:
    forward = runner._denoiser.forward
    assert isinstance(forward, KeepingForward)
    assert forward.keeps_texts
    return forward._text_layers


@pytest.mark.parametrize("name", PAYLOADS)
def test_an_image_has_the_bytes_that_it_had(keeping: DiffusionRunner, before: DiffusionRunner, name: str) -> None:
    assert drawn(keeping, PAYLOADS[name]) == drawn(before, PAYLOADS[name])


def test_images_of_all_kinds_have_them_together(keeping: DiffusionRunner, before: DiffusionRunner) -> None:
    alone = [drawn(before, payload)[0] for payload in PAYLOADS.values()]
    assert drawn(keeping, *PAYLOADS.values()) == alone
    assert drawn(keeping, *reversed(PAYLOADS.values())) == alone[::-1]
    assert len(set(alone)) == len(alone)


@needs_bfloat16
def test_they_have_them_in_bfloat16_too(tiny_pack: ModelPack) -> None:
    keeping, before = loaded(tiny_pack, HALF), loaded(tiny_pack, HALF, keeps=False)
    specs = [payload for payload in PAYLOADS.values() if isinstance(payload, ImageSpec)]
    assert drawn(keeping, *specs) == drawn(before, *specs)


def test_a_prompt_is_projected_once_for_all_steps_and_all_images_that_have_it(keeping: DiffusionRunner) -> None:
    layers = projections(keeping)
    with counted(layers) as calls:
        requests = begin(keeping, [replace(FOX, seed=seed) for seed in range(4)])
        keeping.step(requests)
        requests += begin(keeping, [replace(FOX, prompt="a dog", seed=9)])
        step_on(keeping, requests)
    prompts = 3  # the fox, the dog, and the empty one of all five
    assert len(calls) == prompts * len(layers)
    assert set(calls) == {2}, "as many rows as the smallest forward has"


def test_a_timestep_is_projected_once(tiny_pack: ModelPack) -> None:
    runner = loaded(tiny_pack, torch.float32)
    assert isinstance(runner._unet.time_proj, KeptTimesteps)
    drawn(runner, replace(FOX, num_inference_steps=1))  # the first forwards of a size probe the device
    with counted([runner._unet.time_proj.own]) as calls:
        drawn(runner, FOX, replace(FOX, seed=1))
        assert set(calls) == {1}, "both images have the same timestep in a step"
        known = len(calls)
        assert known <= FOX.num_inference_steps
        drawn(runner, FOX, replace(FOX, seed=2))
        assert len(calls) == known
        drawn(runner, replace(FOX, scheduler="dpmpp_2m_karras"))
        assert len(calls) > known


def test_it_is_freed_with_the_last_image_that_uses_it(keeping: DiffusionRunner) -> None:
    gc.collect()
    assert kept(keeping).num_bytes == 0
    first, second = begin(keeping, [FOX, replace(FOX, prompt="a dog")])
    keeping.step([first, second])
    both = kept(keeping).num_bytes
    assert both > 0
    keeping.step([second])
    first.state = None  # cancelled
    alone = kept(keeping).num_bytes
    assert 0 < alone < both
    step_on(keeping, [second])
    assert kept(keeping).num_bytes == 0, "an image that waits for its decoding needs none"


def test_without_room_prompts_are_projected_in_every_step(tiny_pack: ModelPack, before: DiffusionRunner) -> None:
    one = projections_bytes(tiny_pack)
    payloads = [FOX, replace(FOX, prompt="a dog"), replace(FOX, prompt="a cat")]
    expected = drawn(before, *payloads)
    for room in (0, one, 2 * one, 3 * one):
        runner = loaded(tiny_pack, torch.float32, kept_text_bytes=room)
        requests = begin(runner, payloads)
        runner.step(requests)
        assert kept(runner).num_bytes <= 2 * room
        assert sum(bool(request.state.texts) for request in requests) == max(0, room // one - 1)
        step_on(runner, requests)
        assert [request.state.latents.numpy().tobytes() for request in requests] == expected


def projections_bytes(pack: ModelPack) -> int:
    """Return the bytes of one prompt's keys and values."""
    runner = loaded(pack, torch.float32)
    [request] = begin(runner, [replace(FOX, guidance_scale=1.0)])
    runner.step([request])
    [text] = request.state.texts
    num_bytes: int = text.values.nbytes
    return num_bytes


def test_layers_that_are_not_optimized_take_embeddings(components: DiffusionComponents) -> None:
    forward = KeepingForward(components.unet, torch.float32, keeps=True)
    assert not forward.keeps_texts
    assert not isinstance(components.unet.time_proj, KeptTimesteps)


@pytest.fixture(scope="module")
def components(tiny_pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(tiny_pack, CPU, torch.float32)
