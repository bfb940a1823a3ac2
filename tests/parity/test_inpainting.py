"""Models with channels for a mask against diffusers' pipeline for masks, on tiny random weights of nine channels.

Tolerance as in `test_diffusion.py`. Against ourselves none: an image is the same bytes alone and in any batch.
"""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInpaintPipeline
from PIL import Image, ImageFilter

from app.engine.diffusion.noise.schedulers import NOISE_SCHEDULERS
from app.engine.diffusion.runner import DiffusionRunner
from app.errors import Invalid
from app.image_spec import ImageSpec
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.pack import ModelPack
from testing.ldm_layout import write_single_file
from testing.tiny_diffusion import as_inpainting, build_seeded
from tests.parity.conftest import CPU
from tests.parity.test_diffusion import assert_close, assert_same_latents, make_runner
from tests.parity.test_image_to_image import (
    HEIGHT,
    WIDTH,
    latents_alone,
    left_half,
    payload_of,
    picture,
    quiet,
    run,
    start,
    upstream,
)
from tests.parity.test_models import MASK, PICTURE, SPEC, draw, pack_of, served, with_picture

STRENGTHS = (0.6, 1.0)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> ModelPack:
    return pack_of(as_inpainting(build_seeded(tmp_path_factory.mktemp("inpainting") / "model", 3)))


@pytest.fixture(scope="module")
def components(pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(pack, CPU, torch.float32)


@pytest.fixture(scope="module")
def runner(components: DiffusionComponents) -> DiffusionRunner:
    return make_runner(components)


@pytest.fixture(scope="module")
def pipeline(pack: ModelPack) -> StableDiffusionInpaintPipeline:
    found = quiet(StableDiffusionInpaintPipeline, pack)
    assert found.unet.config.in_channels == 9
    return found


def upper_half() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[: HEIGHT // 2] = 255
    return mask


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("scheduler", NOISE_SCHEDULERS)
def test_latents_are_those_of_the_pipeline_alone_and_in_company(
    runner: DiffusionRunner, pipeline: StableDiffusionInpaintPipeline, scheduler: str, strength: float
) -> None:
    payload = payload_of(scheduler, strength, mask=left_half())
    alone = latents_alone(runner, payload)
    assert_same_latents(alone, upstream(pipeline, payload))
    company = [
        payload_of("euler_a", 0.8, pixels=picture(5), mask=upper_half(), guidance_scale=1.0),
        payload_of("lcm", 1.0, mask=upper_half()),
        payload_of("ddim", 0.5, mask=left_half(), prompt="fox " * 90, prompt_syntax="weighted", num_inference_steps=12),
    ]
    requests = [start(runner, each) for each in [*company, payload]]
    run(runner, requests)
    assert requests[-1].state.latents.numpy().tobytes() == alone.tobytes()


@pytest.mark.parametrize("strength", STRENGTHS)
def test_pixels_are_those_of_the_pipeline(
    runner: DiffusionRunner, pipeline: StableDiffusionInpaintPipeline, strength: float
) -> None:
    payload = payload_of("dpmpp_2m", strength, mask=left_half())
    request = start(runner, payload)
    run(runner, [request])
    assert_close(runner.finish(request).pixels, upstream(pipeline, payload, "pil"))


def test_a_mask_of_any_greys_is_rounded_blurred_or_not(
    runner: DiffusionRunner, pipeline: StableDiffusionInpaintPipeline
) -> None:
    greys = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    soft = np.asarray(Image.fromarray(left_half()).filter(ImageFilter.GaussianBlur(8)))
    for payload in (payload_of("ddim", 0.6, mask=greys), payload_of("ddim", 0.6, mask=soft, mask_blur=8.0)):
        channels = start(runner, payload).state.mask_channels
        assert channels.shape == (5, HEIGHT // 8, WIDTH // 8)
        assert set(channels[0].unique().tolist()) <= {0.0, 1.0}
        assert_same_latents(latents_alone(runner, payload), upstream(pipeline, payload))


def test_the_mask_and_what_is_outside_of_it_reach_the_network(runner: DiffusionRunner) -> None:
    """At a strength of 1 nothing else tells one picture or mask from another."""
    found = {
        latents_alone(runner, payload_of("ddim", 1.0, mask=mask, pixels=picture(which))).tobytes()
        for mask in (left_half(), upper_half())
        for which in (0, 1)
    }
    assert len(found) == 4
    inside = picture().copy()
    inside[left_half() > 0] = 0
    repainted = [payload_of("ddim", 1.0, mask=left_half(), pixels=pixels) for pixels in (picture(), inside)]
    first, second = (latents_alone(runner, payload).tobytes() for payload in repainted)
    assert first == second, "what is repainted is not seen"


def test_an_image_without_a_mask_is_refused(runner: DiffusionRunner) -> None:
    plain = ImageSpec("a fox", num_inference_steps=2, width=WIDTH, height=HEIGHT)
    for payload in (plain, payload_of("ddim", 0.6)):
        with pytest.raises(Invalid, match="Give init_image and mask") as caught:
            start(runner, payload)
        assert caught.value.code == "mask_missing"


@pytest.mark.parametrize("has_config", [False, True], ids=["by the weights", "by the configuration"])
def test_a_single_file_is_recognized(
    pack: ModelPack, components: DiffusionComponents, runner: DiffusionRunner, tmp_path: Path, has_config: bool
) -> None:
    source = load_diffusion(pack, CPU, torch.float32)
    path = tmp_path / "inpainting.safetensors"
    write_single_file(path, unet=source.unet, vae=source.vae, text_encoder=source.text_encoder)
    ignore = shutil.ignore_patterns("*.safetensors")
    for part in ("text_encoder", "unet", "vae", "tokenizer", "scheduler"):
        shutil.copytree(pack.part("diffusion") / part, path.with_suffix("") / part, ignore=ignore)
    if not has_config:
        config = path.with_suffix("") / "unet" / "config.json"
        known = json.loads(config.read_text())
        del known["in_channels"]
        config.write_text(json.dumps(known))
    single = make_runner(load_diffusion(replace(pack, overrides={"diffusion": path}), CPU, torch.float32))
    payload = payload_of("ddim", 0.6, mask=left_half())
    assert latents_alone(single, payload).tobytes() == latents_alone(runner, payload).tobytes()


def test_needles_have_their_bytes_beside_other_models(pack: ModelPack, tmp_path: Path) -> None:
    """Rows of nine channels are lanes of their own: between images of models of four, with masks and without."""
    second = build_seeded(tmp_path / "second", 1)
    models = {"inpainting": pack.part("diffusion"), "second": second}
    kinds = [
        with_picture(replace(SPEC, model=model, scheduler=scheduler), masked=True)
        for model in ("inpainting", "second", None)
        for scheduler in ("euler_a", "ddim")
    ]
    company = [(replace(SPEC, model=model, seed=seed), None) for model in ("second", None) for seed in (1, 2)]
    with served(models, None, tmp_path / "own") as (_, inference):

        async def together() -> list[np.ndarray]:
            return await asyncio.gather(*(draw(inference, *each) for each in [*kinds, *company]))

        found = asyncio.run(together())[: len(kinds)]
        for kind, pixels in zip(kinds, found, strict=True):
            assert asyncio.run(draw(inference, *kind)).tobytes() == pixels.tobytes(), kind[0].model
    pipeline = quiet(StableDiffusionInpaintPipeline, pack)
    for (spec, _), pixels in zip(kinds[:2], found[:2], strict=True):
        own = payload_of(spec.scheduler, 0.6, mask=MASK, pixels=PICTURE)
        own = replace(own, spec=replace(spec, model=None, init_image=own.spec.init_image, mask=own.spec.mask))
        assert_close(pixels, upstream(pipeline, own, "pil"))
