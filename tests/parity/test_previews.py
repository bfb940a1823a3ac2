"""What a step predicts, against a model whose images are known; and previews of the demo pack, against its pictures."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.engine.diffusion.noise.plan import make_noise_plan
from app.engine.diffusion.noise.schedulers import NOISE_SCHEDULERS
from app.engine.diffusion.noise.update import scale_inputs
from app.engine.diffusion.previews import PreviewTap, predicted_images
from app.engine.diffusion.runner import DiffusionRunner, cost_of
from app.engine.request import EngineRequest
from app.image_spec import ImageSpec
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import ModelPack, demo_pack_folder, read_pack, sha256_of
from app.services.images.previews import ColoursFile, shipped_colours
from app.step_rows import FORECAST_SCHEDULERS
from bench.previews.drawing import draw, load_runner, psnr_db, specs_of
from demo_pack.drawing import CLASSES
from tests.parity.conftest import CPU
from tests.parity.test_forecast import ALPHAS, CONFIG, linear_model, make_plan
from tests.parity.test_noise_plan import SHAPE

MIN_PSNR_DB = 20.0


def known_images(timesteps: torch.Tensor) -> torch.Tensor:
    """The images that `linear_model` stands for. **Shapes**: (S,) to (S, C, h, w)."""
    generator = torch.Generator().manual_seed(3)
    start, speed = (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    return start + speed * timesteps.double()[:, None, None, None] / 1000


@pytest.mark.parametrize("is_forecast", [False, True])
@pytest.mark.parametrize(
    "name", sorted(set(NOISE_SCHEDULERS) - {"dpmpp_2m_karras"})
)  # its sigmas lie between timesteps
def test_what_a_step_predicts_is_the_image_that_the_model_sees(name: str, is_forecast: bool) -> None:
    if is_forecast and name not in FORECAST_SCHEDULERS:
        pytest.skip("its steps are never forecast")
    plan = make_plan(name, 20, is_forecast=is_forecast) if is_forecast else make_noise_plan(name, 20, CONFIG)
    timesteps = plan.timesteps.float()
    generator = torch.Generator().manual_seed(5)
    samples = torch.randn(len(timesteps), *SHAPE[1:], generator=generator) / plan.input_scales[:, None, None, None]
    outputs = linear_model(scale_inputs(samples, plan.input_scales), timesteps)
    predicted = torch.stack(
        predicted_images(samples, outputs, plan.x0_weights.unbind(), range(len(timesteps)))
    ).double()
    alphas = ALPHAS[timesteps.round().long()].sqrt()[:, None, None, None]
    # Early steps divide by a small alpha, which scales the rounding of float32.
    np.testing.assert_allclose((predicted * alphas).numpy(), (known_images(timesteps) * alphas).numpy(), atol=5e-5)


def test_previews_change_no_byte_of_an_image(tiny_pack: ModelPack) -> None:
    parts = load_diffusion(tiny_pack, CPU, torch.float32)
    runner = DiffusionRunner(**{name: getattr(parts, name) for name in parts.__dataclass_fields__}, device=CPU)
    runner.calibrate(64, 64, time_limit_s=60)
    fox = ImageSpec("the red fox", num_inference_steps=12, height=64, width=64)
    specs = [fox, replace(fox, scheduler="euler_a"), replace(fox, scheduler="ddim", speed="balanced")]
    kept: list[int] = []

    def pictures(every: int | None) -> list[np.ndarray]:
        requests = []
        for index, spec in enumerate(specs):
            wants = every is not None and index != 1  # one in the same batch has none
            tap = PreviewTap(every or 1, lambda *_: None, lambda done, *_: kept.append(done)) if wants else None
            requests.append(EngineRequest("diffusion", spec, cost=cost_of(spec), on_step=tap))
            runner.prepare(requests[-1])
        while going := [request for request in requests if not runner.is_finished(request)]:
            runner.step(going)
            for request in going:
                request.steps_done += 1
                if request.on_step is not None:
                    request.on_step(request.steps_done, request.cost.steps)
        return [runner.finish(request).pixels for request in requests]

    without, with_previews = pictures(None), pictures(4)
    assert all(np.array_equal(*pair) for pair in zip(without, with_previews, strict=True))
    assert sorted(kept) == [4, 4, 8, 8, 12], "13 steps of pndm, 9 of the balanced one"


@pytest.mark.parametrize(("speed", "steps"), [("exact", 14), ("balanced", 50)])
def test_previews_of_the_demo_pack_are_like_its_pictures_half_way(speed: str, steps: int) -> None:
    pack = read_pack(demo_pack_folder())
    vae = next((pack.part("diffusion") / "vae").glob("*.safetensors"))
    colours = ColoursFile(shipped_colours(pack), sha256_of(vae)).read()
    assert colours is not None, "fit them again: python -m bench.previews fit --write"
    drawn = list(draw(load_runner(pack), specs_of(CLASSES, 8, steps, speed)))
    likeness = [psnr_db(colours, image.half_way, image.small) for image in drawn]
    assert np.mean(likeness) >= MIN_PSNR_DB, likeness


def test_colours_that_are_fitted_at_the_first_load_do_nearly_as_well() -> None:
    pack = read_pack(demo_pack_folder())
    runner = load_runner(pack)
    colours = runner.fit_colours()
    drawn = list(draw(runner, specs_of(CLASSES, 8, 14)))
    likeness = [psnr_db(colours, image.half_way, image.small) for image in drawn]
    assert np.mean(likeness) >= MIN_PSNR_DB, likeness
