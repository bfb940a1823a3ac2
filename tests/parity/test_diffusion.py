"""Our sampling loop against `StableDiffusionPipeline`, called directly on the same tiny pack in float32.

Tolerance: none. Both run the same operations in the same order on one row (unguided) or two (guided), so pixels and
latents are equal bit for bit on the CPU.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)

from app.engine.diffusion import DiffusionPayload, DiffusionRunner, GeneratedImage
from app.engine.noise_schedulers import NOISE_SCHEDULERS
from app.engine.request import EngineRequest
from app.errors import InferenceFailed, Invalid
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.pack import ModelPack, read_pack
from tests.parity.conftest import CPU
from tests.tiny import NOISE_SCHEDULER, build_tiny_pack

PAYLOAD = DiffusionPayload("the red fox", num_inference_steps=6, height=64, width=48, seed=42)

# How the documentation of diffusers says to make them.
UPSTREAM: dict[str, Callable[[Any], Any]] = {
    "pndm": lambda config: PNDMScheduler.from_config(config),
    "ddim": lambda config: DDIMScheduler.from_config(config),
    "euler": lambda config: EulerDiscreteScheduler.from_config(config),
    "euler_a": lambda config: EulerAncestralDiscreteScheduler.from_config(config),
    "dpmpp_2m": lambda config: DPMSolverMultistepScheduler.from_config(config),
    "dpmpp_2m_karras": lambda config: DPMSolverMultistepScheduler.from_config(config, use_karras_sigmas=True),
    "unipc": lambda config: UniPCMultistepScheduler.from_config(config),
    "lcm": lambda config: LCMScheduler.from_config(config),
}


@pytest.fixture(scope="module")
def components(tiny_pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(tiny_pack, CPU, torch.float32)


@pytest.fixture(scope="module")
def runner(components: DiffusionComponents) -> DiffusionRunner:
    return make_runner(components)


@pytest.fixture(scope="module")
def pipeline(tiny_pack: ModelPack) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_pack.part("diffusion"), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def make_runner(components: DiffusionComponents, **changes: Any) -> DiffusionRunner:
    fields = {name: getattr(components, name) for name in components.__dataclass_fields__}
    return DiffusionRunner(**{**fields, **changes}, device=CPU)


def generate(runner: DiffusionRunner, *payloads: DiffusionPayload) -> list[GeneratedImage]:
    """Make the images with their steps interleaved, one step each in turn."""
    requests = [EngineRequest("diffusion", payload) for payload in payloads]
    for request in requests:
        runner.prepare(request)
    images: dict[int, GeneratedImage] = {}
    for index in itertools.cycle(range(len(requests))):
        if len(images) == len(requests):
            return [images[index] for index in range(len(requests))]
        if index not in images:
            runner.step([requests[index]])
            if runner.is_finished(requests[index]):
                images[index] = runner.finish(requests[index])
    raise AssertionError


def upstream(
    pipeline: StableDiffusionPipeline,
    payload: DiffusionPayload,
    *,
    num_images: int = 1,
    output_type: str = "pil",
) -> list[np.ndarray]:
    """What `StableDiffusionPipeline` makes of the same settings."""
    pipeline.scheduler = UPSTREAM[payload.noise_scheduler](PNDMScheduler.from_config(NOISE_SCHEDULER).config)
    images = pipeline(
        payload.prompt,
        negative_prompt=payload.negative_prompt,
        guidance_scale=payload.guidance_scale,
        num_inference_steps=payload.num_inference_steps,
        height=payload.height,
        width=payload.width,
        num_images_per_prompt=num_images,
        generator=[torch.Generator().manual_seed(payload.seed + index) for index in range(num_images)],
        output_type=output_type,
    ).images
    return [np.asarray(image) for image in images]


@pytest.mark.parametrize("noise_scheduler", NOISE_SCHEDULERS)
@pytest.mark.parametrize("guidance_scale", [7.5, 1.0])
@pytest.mark.parametrize("num_inference_steps", [1, 2, 7, 20])
def test_pixels_equal_the_pipelines(
    runner: DiffusionRunner,
    pipeline: StableDiffusionPipeline,
    noise_scheduler: str,
    guidance_scale: float,
    num_inference_steps: int,
) -> None:
    payload = replace(
        PAYLOAD,
        negative_prompt="a dog",
        guidance_scale=guidance_scale,
        num_inference_steps=num_inference_steps,
        noise_scheduler=noise_scheduler,
    )
    [image] = generate(runner, payload)
    [expected] = upstream(pipeline, payload)
    assert image.pixels.dtype == np.uint8
    np.testing.assert_array_equal(image.pixels, expected)
    assert image.flagged is False


@pytest.mark.parametrize("noise_scheduler", NOISE_SCHEDULERS)
def test_final_latents_equal_the_pipelines(
    runner: DiffusionRunner, pipeline: StableDiffusionPipeline, noise_scheduler: str
) -> None:
    payload = replace(PAYLOAD, noise_scheduler=noise_scheduler)
    request = EngineRequest("diffusion", payload)
    runner.prepare(request)
    while not runner.is_finished(request):
        runner.step([request])
    [expected] = upstream(pipeline, payload, output_type="latent")
    np.testing.assert_array_equal(request.state.latents[0].numpy(), expected)


def test_the_negative_prompt_counts_when_guided_alone(runner: DiffusionRunner) -> None:
    plain, negative = generate(runner, PAYLOAD, replace(PAYLOAD, negative_prompt="a dog"))
    assert not np.array_equal(plain.pixels, negative.pixels)

    plain, negative = generate(
        runner,
        replace(PAYLOAD, guidance_scale=1.0),
        replace(PAYLOAD, guidance_scale=1.0, negative_prompt="a dog"),
    )
    np.testing.assert_array_equal(plain.pixels, negative.pixels)


def test_an_unguided_step_takes_one_row(components: DiffusionComponents) -> None:
    rows: list[int] = []
    handle = components.unet.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].shape[0]))
    try:
        runner = make_runner(components)
        generate(runner, replace(PAYLOAD, guidance_scale=1.0, noise_scheduler="ddim"))
        generate(runner, replace(PAYLOAD, guidance_scale=1.1, noise_scheduler="ddim"))
    finally:
        handle.remove()
    assert rows == [1] * 6 + [2] * 6


def test_several_images_are_those_of_the_following_seeds(
    runner: DiffusionRunner, pipeline: StableDiffusionPipeline
) -> None:
    """The pipeline's batch of three runs six rows where ours runs two: equal within one step of 8-bit colour."""
    images = generate(runner, *(replace(PAYLOAD, seed=PAYLOAD.seed + index) for index in range(3)))
    for image, expected in zip(images, upstream(pipeline, PAYLOAD, num_images=3), strict=True):
        assert np.abs(image.pixels.astype(int) - expected.astype(int)).max() <= 1
    assert not np.array_equal(images[0].pixels, images[1].pixels)


def test_an_image_does_not_depend_on_what_else_runs(runner: DiffusionRunner) -> None:
    """Every noise scheduler interleaved with all others at different steps, sizes and guidance."""
    payloads = [
        replace(
            PAYLOAD,
            prompt=f"a fox {index}",
            num_inference_steps=3 + index,
            width=32 + 8 * index,
            guidance_scale=1.0 if index % 3 == 0 else 4.0,
            seed=index,
            noise_scheduler=noise_scheduler,
        )
        for index, noise_scheduler in enumerate(NOISE_SCHEDULERS)
    ]
    together = generate(runner, *payloads)
    for payload, image in zip(payloads, together, strict=True):
        [alone] = generate(runner, payload)
        np.testing.assert_array_equal(image.pixels, alone.pixels)


@pytest.mark.parametrize("seed", [0, 2**53 - 1])
def test_the_same_seed_makes_the_same_image(runner: DiffusionRunner, seed: int) -> None:
    first, second, other = generate(
        runner, replace(PAYLOAD, seed=seed), replace(PAYLOAD, seed=seed), replace(PAYLOAD, seed=seed ^ 1)
    )
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert not np.array_equal(first.pixels, other.pixels)


def test_a_prompt_longer_than_77_tokens_is_cut_as_the_pipeline_cuts_it(
    runner: DiffusionRunner, pipeline: StableDiffusionPipeline
) -> None:
    kept = " ".join(["fox"] * 75)
    payload = replace(PAYLOAD, prompt=kept + " Red Dog", negative_prompt=kept + "  cat")
    [image] = generate(runner, payload)
    assert image.prompt_cut == "Red Dog"
    assert image.negative_prompt_cut == "cat"
    [expected] = upstream(pipeline, payload)
    np.testing.assert_array_equal(image.pixels, expected)


def test_a_prompt_of_exactly_77_tokens_is_not_cut(runner: DiffusionRunner) -> None:
    [image] = generate(runner, replace(PAYLOAD, prompt=" ".join(["fox"] * 75)))
    assert image.prompt_cut is None
    assert image.negative_prompt_cut is None


def test_timings_are_told(runner: DiffusionRunner) -> None:
    [image] = generate(runner, PAYLOAD)
    assert image.queued_ms >= 0
    assert image.denoising_ms > 0
    assert image.decoding_ms > 0


def test_a_flagged_image_is_black_as_the_checker_leaves_it(
    tiny_pack: ModelPack, pipeline: StableDiffusionPipeline
) -> None:
    components = load_diffusion(tiny_pack, CPU, torch.float32)
    runner = make_runner(components)
    components.safety_checker.concept_embeds_weights.data.fill_(-2.0)  # no cosine is below: flags everything
    [image] = generate(runner, PAYLOAD)
    assert image.flagged is True
    assert not image.pixels.any()


def test_a_pack_without_a_safety_checker_leaves_flagged_unknown(
    tmp_path_factory: pytest.TempPathFactory, pipeline: StableDiffusionPipeline
) -> None:
    folder = build_tiny_pack(tmp_path_factory.mktemp("packs") / "unchecked", has_safety_checker=False)
    components = load_diffusion(read_pack(folder), CPU, torch.float32)
    [image] = generate(make_runner(components), PAYLOAD)
    assert image.flagged is None
    [expected] = upstream(pipeline, PAYLOAD)
    np.testing.assert_array_equal(image.pixels, expected, "the same weights make the same image")


def test_an_image_that_is_not_a_number_is_an_error(tiny_pack: ModelPack) -> None:
    components = load_diffusion(tiny_pack, CPU, torch.float32)
    components.unet.conv_out.bias.data.fill_(math.nan)
    with pytest.raises(InferenceFailed):
        generate(make_runner(components), PAYLOAD)


@pytest.mark.parametrize(
    "payload",
    [
        replace(PAYLOAD, noise_scheduler="lcm", num_inference_steps=51),
        replace(PAYLOAD, noise_scheduler="heun"),
    ],
    ids=["lcm takes 50 steps at most", "unknown"],
)
def test_what_a_noise_scheduler_cannot_do_is_an_invalid_request(
    runner: DiffusionRunner, payload: DiffusionPayload
) -> None:
    with pytest.raises(Invalid):
        runner.prepare(EngineRequest("diffusion", payload))


def test_a_noise_scheduler_config_is_not_changed_by_use(components: DiffusionComponents) -> None:
    before = dict(components.noise_scheduler_config)
    for name in NOISE_SCHEDULERS:
        generate(make_runner(components), replace(PAYLOAD, noise_scheduler=name, num_inference_steps=2))
    assert components.noise_scheduler_config == before
