"""The demo pack's few-step weights against `load_lora_weights` of diffusers, and against ourselves in company.

diffusers adds the product of the factors to a layer's output, we add it to the layer's weight. Tolerance: that of
`test_diffusion`. Against ourselves: none.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from app.engine.diffusion.runner import DiffusionRunner, spec_of
from app.image_spec import AdapterSet, ImageSpec
from app.modelpacks.adapters import AdapterFolder, BaseModels
from app.modelpacks.loading import load_diffusion, reload_network
from app.modelpacks.pack import FewStep, ModelPack, find_pack
from app.services.inference.diffusion.model_adapters import ModelAdapters
from tests.parity.conftest import CPU
from tests.parity.test_diffusion import assert_same_latents, final_latents, latents_of, make_runner, start

SLOW = ImageSpec("a watercolor painting of a red fox", num_inference_steps=12, width=128, height=128, seed=5)


@pytest.fixture(scope="module")
def pack() -> ModelPack:
    return find_pack("demo", Path())


@pytest.fixture(scope="module")
def few_step(pack: ModelPack) -> FewStep:
    assert pack.few_step is not None
    return pack.few_step


@pytest.fixture(scope="module")
def runner(pack: ModelPack, few_step: FewStep) -> DiffusionRunner:
    parts = load_diffusion(pack, CPU, torch.float32)
    path = pack.folder / few_step.file.path
    known = AdapterFolder(None, unet=parts.unet, text_encoder=parts.text_encoder, few_step=path)
    runner = make_runner(parts)
    base = BaseModels(
        tokenizer=parts.tokenizer,
        text_encoder=parts.text_encoder,
        unet=parts.unet,
        reload_unet=lambda: reload_network(pack, "unet", CPU, torch.float32),
        reload_text_encoder=lambda: reload_network(pack, "text_encoder", CPU, torch.float32),
    )
    ModelAdapters(known, base, runner).pin(AdapterSet(is_few_step=True))
    return runner


@pytest.fixture(scope="module")
def fast(few_step: FewStep) -> ImageSpec:
    settings = few_step.settings
    return replace(
        SLOW,
        speed="fast",
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        scheduler=settings.scheduler,
        timestep_spacing=settings.timestep_spacing,
    )


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
@pytest.mark.parametrize(
    "changes", [{}, {"prompt": "an oil painting of a blue boat at night", "seed": 6}, {"width": 96, "height": 64}]
)
def test_latents_equal_those_of_diffusers(
    pack: ModelPack, few_step: FewStep, runner: DiffusionRunner, fast: ImageSpec, changes: dict[str, Any]
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(pack.part("diffusion"), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    file = pack.folder / few_step.file.path
    pipeline.load_lora_weights(file.parent, weight_name=file.name, local_files_only=True)
    spec = replace(fast, **changes)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    [expected] = pipeline(
        prompt=spec.prompt,
        num_inference_steps=spec.num_inference_steps,
        guidance_scale=spec.guidance_scale,
        width=spec.width,
        height=spec.height,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type="latent",
    ).images
    assert_same_latents(final_latents(runner, spec), np.asarray(expected))


def companions(fast: ImageSpec) -> Sequence[ImageSpec]:
    return [
        SLOW,
        fast,
        replace(SLOW, guidance_scale=1.0, scheduler="ddim", timestep_spacing="trailing"),
        replace(SLOW, speed="balanced", num_inference_steps=20, scheduler="ddim", guidance_interval=(0.2, 0.8)),
        replace(fast, num_inference_steps=2),
        replace(fast, scheduler="lcm", timestep_spacing=None),
    ]


@pytest.mark.parametrize("needle", range(6))
def test_an_image_is_the_same_bytes_alone_and_among_all_speeds(
    runner: DiffusionRunner, fast: ImageSpec, needle: int
) -> None:
    """The lanes of the engine: in each turn the images of either weights share a forward."""
    spec = companions(fast)[needle]
    alone = final_latents(runner, spec)
    rng = random.Random(needle)
    request = start(runner, spec)
    others = [start(runner, replace(rng.choice(companions(fast)), seed=seed)) for seed in range(6)]
    while not runner.is_finished(request):
        running = [each for each in (request, *others) if not runner.is_finished(each)]
        rng.shuffle(running)
        for is_fast in (False, True):
            lane = [each for each in running if spec_of(each.payload).adapters.is_few_step is is_fast]
            if lane:
                runner.step(lane)
        if rng.random() < 0.5:
            others.append(start(runner, replace(rng.choice(companions(fast)), seed=len(others))))
    np.testing.assert_array_equal(latents_of(request), alone)


def test_exact_images_have_the_bytes_of_a_pack_without_few_steps(pack: ModelPack, runner: DiffusionRunner) -> None:
    plain = make_runner(load_diffusion(replace(pack, few_step=None), CPU, torch.float32))
    np.testing.assert_array_equal(final_latents(runner, SLOW), final_latents(plain, SLOW))
