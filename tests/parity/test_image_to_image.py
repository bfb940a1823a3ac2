"""Images made from other images against diffusers' pipelines for images and masks, on the tiny pack.

Tolerance as in `test_diffusion.py`. Against ourselves none: an image is the same bytes alone and in any batch.
"""

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from PIL import Image, ImageFilter

from app.engine.diffusion.encoder import ImageEncoder, ImageToImage
from app.engine.diffusion.noise.schedulers import NOISE_SCHEDULERS
from app.engine.diffusion.runner import DiffusionRunner, cost_of
from app.engine.request import EngineRequest
from app.image_spec import ImageSpec, PictureRef
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.pack import ModelPack
from app.step_rows import FORECAST_SCHEDULERS
from testing.tiny import NOISE_SCHEDULER
from tests.parity.conftest import CPU
from tests.parity.test_diffusion import UPSTREAM, assert_close, assert_same_latents, make_runner

WIDTH, HEIGHT = 48, 64
STRENGTHS = (0.3, 0.6, 1.0)


def picture(seed: int = 0) -> np.ndarray:
    """A smooth picture of random colours."""
    colours = np.random.default_rng(seed).integers(0, 256, (8, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(colours).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def left_half() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, : WIDTH // 2] = 255
    return mask


def ref(pixels: np.ndarray) -> PictureRef:
    return PictureRef(hashlib.sha256(pixels.tobytes()).hexdigest())


def payload_of(
    scheduler: str, strength: float, *, mask: np.ndarray | None = None, pixels: np.ndarray | None = None, **changes: Any
) -> ImageToImage:
    pixels = picture() if pixels is None else pixels
    spec = ImageSpec(
        "the red fox",
        negative_prompt="a dog",
        num_inference_steps=10,
        width=WIDTH,
        height=HEIGHT,
        seed=42,
        scheduler=scheduler,
        init_image=ref(pixels),
        mask=None if mask is None else ref(mask),
        strength=strength,
    )
    return ImageToImage(replace(spec, **changes), pixels, mask)


@pytest.fixture(scope="module")
def components(tiny_pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(tiny_pack, CPU, torch.float32)


@pytest.fixture(scope="module")
def runner(components: DiffusionComponents) -> DiffusionRunner:
    return make_runner(components)


@pytest.fixture(scope="module")
def img2img(tiny_pack: ModelPack) -> StableDiffusionImg2ImgPipeline:
    return quiet(StableDiffusionImg2ImgPipeline, tiny_pack)


@pytest.fixture(scope="module")
def inpaint(tiny_pack: ModelPack) -> StableDiffusionInpaintPipeline:
    return quiet(StableDiffusionInpaintPipeline, tiny_pack)


def quiet(pipeline_class: Any, pack: ModelPack) -> Any:
    pipeline = pipeline_class.from_pretrained(pack.part("diffusion"), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def upstream(pipeline: Any, payload: ImageToImage, output_type: str = "latent", **how: Any) -> np.ndarray:
    """What one of diffusers' pipelines makes of the same settings."""
    spec = payload.spec
    pipeline.scheduler = UPSTREAM[spec.scheduler](PNDMScheduler.from_config(dict(NOISE_SCHEDULER)).config)
    if payload.mask is not None:
        how |= {"mask_image": Image.fromarray(payload.mask), "width": spec.width, "height": spec.height}
    [image] = pipeline(
        spec.prompt,
        eta=0.3 if spec.scheduler == "tcd" else 0.0,  # as in test_diffusion.py
        image=Image.fromarray(payload.pixels),
        negative_prompt=spec.negative_prompt,
        guidance_scale=spec.guidance_scale,
        num_inference_steps=spec.num_inference_steps,
        strength=spec.strength,
        generator=torch.Generator().manual_seed(spec.seed),
        output_type=output_type,
        **how,
    ).images
    return np.asarray(image)


def start(runner: DiffusionRunner, payload: object) -> EngineRequest:
    request = EngineRequest("diffusion", payload)
    runner.prepare(request)
    return request


def run(runner: DiffusionRunner, requests: list[EngineRequest]) -> None:
    while running := [request for request in requests if not runner.is_finished(request)]:
        runner.step(running)


def latents_in_company(runner: DiffusionRunner, payload: ImageToImage) -> np.ndarray:
    """Of an image that shares its forwards with images from prompts alone, and with one from another picture."""
    plain = ImageSpec("a dog", num_inference_steps=12, width=WIDTH, height=HEIGHT, seed=7)
    others = [
        plain,
        replace(plain, scheduler="euler_a", guidance_scale=1.0),
        payload_of("lcm", 0.8, pixels=picture(5), mask=left_half()),
    ]
    requests = [start(runner, each) for each in [*others, payload]]
    run(runner, requests)
    latents: np.ndarray = requests[-1].state.latents.numpy()
    return latents


def latents_alone(runner: DiffusionRunner, payload: ImageToImage) -> np.ndarray:
    request = start(runner, payload)
    run(runner, [request])
    latents: np.ndarray = request.state.latents.numpy()
    return latents


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("scheduler", NOISE_SCHEDULERS)
def test_latents_are_those_of_the_pipeline_for_images(
    runner: DiffusionRunner, img2img: StableDiffusionImg2ImgPipeline, scheduler: str, strength: float
) -> None:
    payload = payload_of(scheduler, strength)
    alone = latents_alone(runner, payload)
    assert_same_latents(alone, upstream(img2img, payload))
    assert latents_in_company(runner, payload).tobytes() == alone.tobytes()


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("scheduler", NOISE_SCHEDULERS)
def test_latents_are_those_of_the_pipeline_for_masks(
    runner: DiffusionRunner, inpaint: StableDiffusionInpaintPipeline, scheduler: str, strength: float
) -> None:
    payload = payload_of(scheduler, strength, mask=left_half())
    alone = latents_alone(runner, payload)
    assert_same_latents(alone, upstream(inpaint, payload))
    assert latents_in_company(runner, payload).tobytes() == alone.tobytes()


@pytest.mark.parametrize("mask", [None, left_half()], ids=["everywhere", "masked"])
def test_pixels_are_those_of_the_pipelines(
    runner: DiffusionRunner,
    img2img: StableDiffusionImg2ImgPipeline,
    inpaint: StableDiffusionInpaintPipeline,
    mask: np.ndarray | None,
) -> None:
    payload = payload_of("dpmpp_2m", 0.6, mask=mask)
    request = start(runner, payload)
    run(runner, [request])
    expected = upstream(img2img if mask is None else inpaint, payload, "pil")
    assert_close(runner.finish(request).pixels, expected)


def test_a_mask_of_any_greys_is_the_pipelines_mask(
    runner: DiffusionRunner, inpaint: StableDiffusionInpaintPipeline
) -> None:
    """Greys are rounded to black and white, and the mask is sampled at the size of the latents."""
    greys = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    payload = payload_of("ddim", 0.6, mask=greys)
    assert_same_latents(latents_alone(runner, payload), upstream(inpaint, payload))


@pytest.mark.parametrize("scheduler", NOISE_SCHEDULERS)
def test_what_is_outside_of_the_mask_keeps_the_latents_of_the_picture(runner: DiffusionRunner, scheduler: str) -> None:
    payload = payload_of(scheduler, 1.0, mask=left_half())
    request = start(runner, payload)
    original = request.state.repainting.latents.numpy()
    run(runner, [request])
    painted = request.state.latents.numpy()
    half = WIDTH // 2 // 8
    assert painted[:, :, half:].tobytes() == original[:, :, half:].tobytes()
    assert np.abs(painted[:, :, :half] - original[:, :, :half]).max() > 0.1


def test_a_blurred_mask_mixes_at_its_edge(runner: DiffusionRunner) -> None:
    soft = np.asarray(Image.fromarray(left_half()).filter(ImageFilter.GaussianBlur(8)))
    request = start(runner, payload_of("ddim", 0.6, mask=soft, mask_blur=8.0))
    mask = request.state.repainting.mask
    assert ((mask > 0) & (mask < 1)).any()
    assert (
        latents_alone(runner, payload_of("ddim", 0.6, mask=soft)).tobytes()
        != latents_alone(runner, payload_of("ddim", 0.6, mask=soft, mask_blur=8.0)).tobytes()
    )


@pytest.mark.parametrize(("num_steps", "strength"), [(1, 1.0), (2, 0.5), (5, 0.299), (5, 1.0), (20, 0.05), (20, 0.6)])
@pytest.mark.parametrize("scheduler", NOISE_SCHEDULERS)
def test_the_rows_that_are_counted_are_those_that_run(
    runner: DiffusionRunner, scheduler: str, num_steps: int, strength: float
) -> None:
    payload = payload_of(scheduler, strength, num_inference_steps=num_steps)
    cost = cost_of(payload.spec)
    request = start(runner, payload)
    assert len(request.state.plan.draws) == cost.steps == len(payload.spec.step_rows)
    assert cost.rows == 2
    assert payload.spec.pixel_steps == min(num_steps, cost.steps) * WIDTH * HEIGHT


@pytest.mark.parametrize("mask", [None, left_half()], ids=["everywhere", "masked"])
@pytest.mark.parametrize("scheduler", sorted(FORECAST_SCHEDULERS))
def test_forecast_steps_take_no_row_and_stay_close(
    runner: DiffusionRunner, scheduler: str, mask: np.ndarray | None
) -> None:
    exact = payload_of(scheduler, 0.6, mask=mask, num_inference_steps=40, guidance_scale=2.0)
    balanced = replace(exact, spec=replace(exact.spec, speed="balanced"))
    assert cost_of(balanced.spec).steps < cost_of(exact.spec).steps
    expected = latents_alone(runner, exact)
    assert np.abs(latents_alone(runner, balanced) - expected).max() < 0.2 * np.abs(expected).max()


@pytest.mark.parametrize("scheduler", ["pndm", "ddim"])
@pytest.mark.parametrize("strength", [0.5, 0.9, 1.0])
def test_a_spacing_of_the_pack_s_own_changes_no_more_than_rounding(
    runner: DiffusionRunner, scheduler: str, strength: float
) -> None:
    plain = payload_of(scheduler, strength)
    named = payload_of(scheduler, strength, timestep_spacing="leading")
    assert_same_latents(latents_alone(runner, named), latents_alone(runner, plain))


@pytest.mark.parametrize("scheduler", ["pndm", "ddim", "euler", "lcm"])
@pytest.mark.parametrize("strength", [0.2, 0.8, 1.0])
def test_timesteps_of_the_request_are_cut_like_all_others(
    runner: DiffusionRunner, scheduler: str, strength: float
) -> None:
    timesteps = [990, 700, 300, 90, 5]
    taken_in_all = [990, 700, *timesteps[1:]] if scheduler == "pndm" else timesteps  # the second one twice
    payload = payload_of(scheduler, strength, timesteps=tuple(timesteps), num_inference_steps=5)
    plan = start(runner, payload).state.plan
    assert [int(step) for step in plan.timesteps] == taken_in_all[5 - int(5 * strength) :]
    assert np.isfinite(latents_alone(runner, payload)).all()


def test_a_picture_is_encoded_once_whatever_the_seeds(components: DiffusionComponents) -> None:
    encoded: list[Any] = []
    handle = components.vae.encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    with torch.inference_mode():
        encoder = ImageEncoder(components.vae, CPU)
        first, again, other = (
            encoder.draw(payload_of("ddim", 0.5, pixels=picture(which)), torch.Generator().manual_seed(seed))
            for which, seed in ((0, 1), (0, 2), (1, 1))
        )
    handle.remove()
    assert len(encoded) == 2
    assert not torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_cache_of_pictures_is_bounded(components: DiffusionComponents) -> None:
    encoded: list[Any] = []
    handle = components.vae.encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    one = 2 * 4 * (HEIGHT // 8) * (WIDTH // 8) * 4  # mean and deviation of four channels in float32
    with torch.inference_mode():
        encoder = ImageEncoder(components.vae, CPU, cache_bytes=one)
        for which in (0, 0, 1, 0):
            encoder.draw(payload_of("ddim", 0.5, pixels=picture(which)), torch.Generator().manual_seed(1))
    handle.remove()
    assert len(encoded) == 3
