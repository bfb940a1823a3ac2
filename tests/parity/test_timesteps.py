"""Spacings and given timesteps against diffusers' own objects with the same timesteps, where those are right.

DDIM and PNDM in diffusers compute the next timestep from the number of steps, and not from their list. Where the list
is evenly spaced both agree; elsewhere DDIM is compared with its formula over the list.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from app.engine.diffusion.noise.plan import NoisePlan, Schedule, make_noise_plan
from app.engine.diffusion.noise.schedulers import make_noise_scheduler, trailing_timesteps
from app.errors import Invalid
from app.step_rows import SPACED_SCHEDULERS, TIMESTEP_SCHEDULERS
from tests.parity.test_forecast import distance, run
from tests.parity.test_noise_plan import CONFIGS, SHAPE, equal_bytes, stub

CONFIG = CONFIGS["demo"]
SPACINGS = ("leading", "trailing", "linspace")
LIST = (999, 850, 736, 645, 545, 455, 343, 233, 124, 24)
TOLERANCE = 2e-6
DRAWING = {"euler_a", "lcm", "tcd"}


def run_upstream(noise_scheduler: Any) -> torch.Tensor:
    """The final sample of diffusers' loop over the timesteps that are set."""
    sample = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)) * noise_scheduler.init_noise_sigma
    for timestep in noise_scheduler.timesteps:
        scaled = noise_scheduler.scale_model_input(sample, timestep)
        sample = noise_scheduler.step(stub(scaled, timestep[None]), timestep, sample, return_dict=False)[0]
    return sample


def spaced(name: str, steps: int, spacing: str) -> NoisePlan:
    return make_noise_plan(name, steps, CONFIG, Schedule(timestep_spacing=spacing))


def listed(name: str, timesteps: Sequence[int]) -> NoisePlan:
    return make_noise_plan(name, len(timesteps), CONFIG, Schedule(timesteps=tuple(timesteps)))


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 20, 50])
@pytest.mark.parametrize("name", sorted(SPACED_SCHEDULERS))
def test_timesteps_of_a_spacing_are_those_of_diffusers(name: str, steps: int, spacing: str) -> None:
    noise_scheduler = make_noise_scheduler(name, {**CONFIG, "timestep_spacing": spacing})
    noise_scheduler.set_timesteps(steps)
    plan = spaced(name, steps, spacing)
    assert torch.equal(plan.timesteps, noise_scheduler.timesteps)
    assert plan.init_noise_sigma == float(noise_scheduler.init_noise_sigma)


@pytest.mark.parametrize(
    ("name", "spacing", "steps"),
    [(name, spacing, 30) for name in ("euler", "dpmpp_2m", "unipc") for spacing in SPACINGS]
    + [(name, "leading", 30) for name in ("ddim", "pndm")]
    + [(name, "trailing", steps) for name in ("ddim", "pndm") for steps in (20, 50)],
)
def test_samples_of_a_spacing_are_those_of_diffusers(name: str, spacing: str, steps: int) -> None:
    noise_scheduler = make_noise_scheduler(name, {**CONFIG, "timestep_spacing": spacing})
    noise_scheduler.set_timesteps(steps)
    assert distance(run(spaced(name, steps, spacing), stub), run_upstream(noise_scheduler)) < TOLERANCE


@pytest.mark.parametrize("name", sorted(SPACED_SCHEDULERS))
def test_the_spacing_of_the_config_by_name_changes_no_byte(name: str) -> None:
    default, named = make_noise_plan(name, 30, CONFIG), spaced(name, 30, "leading")
    assert equal_bytes(named.coefficients, default.coefficients)
    assert torch.equal(named.timesteps, default.timesteps)


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m"])
def test_given_timesteps_are_those_of_diffusers(name: str) -> None:
    noise_scheduler = make_noise_scheduler(name, CONFIG)
    noise_scheduler.set_timesteps(timesteps=list(LIST))
    plan = listed(name, LIST)
    assert plan.timesteps.tolist() == list(LIST)
    assert distance(run(plan, stub), run_upstream(noise_scheduler)) < TOLERANCE


@pytest.mark.parametrize("name", ["euler_a", "unipc"])
def test_given_timesteps_equal_the_spacing_that_has_them(name: str) -> None:
    """diffusers' objects take no list here, so the list is that of a spacing which they do take."""
    plan = spaced(name, 20, "trailing")
    noise_scheduler = make_noise_scheduler(name, {**CONFIG, "timestep_spacing": "trailing"})
    noise_scheduler.set_timesteps(20)
    same = make_noise_plan(
        name, 20, {**CONFIG, "timestep_spacing": "trailing"}, Schedule(timesteps=tuple(trailing_timesteps(20, 1000)))
    )
    assert torch.equal(plan.timesteps, noise_scheduler.timesteps)
    assert equal_bytes(same.coefficients, plan.coefficients)


@pytest.mark.parametrize("timesteps", [LIST, tuple(trailing_timesteps(30, 1000)), (999,), (500, 0)])
def test_ddim_steps_from_each_timestep_to_the_next_of_the_list(timesteps: tuple[int, ...]) -> None:
    """Its formula in float64; in diffusers the steps of these lists go past the next timestep or fall short of it."""
    alphas = make_noise_scheduler("ddim", CONFIG).alphas_cumprod.double()
    sample = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7)).double()
    for now, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        noise = stub(sample.float(), torch.tensor([float(now)])).double()
        before = alphas[0] if following is None else alphas[following]
        x0 = (sample - (1 - alphas[now]).sqrt() * noise) / alphas[now].sqrt()
        sample = before.sqrt() * x0 + (1 - before).sqrt() * noise
    assert distance(run(listed("ddim", timesteps), stub).double(), sample) < TOLERANCE


def test_pndm_takes_the_second_timestep_of_a_list_twice() -> None:
    assert listed("pndm", LIST).timesteps.tolist() == [*LIST[:2], *LIST[1:]]
    assert listed("pndm", (500,)).timesteps.tolist() == [500]


@pytest.mark.parametrize("steps", [61, 103, 121, 122])
def test_trailing_has_as_many_timesteps_as_asked_for(steps: int) -> None:
    """Here diffusers' own has one more, -1, by rounding."""
    timesteps = trailing_timesteps(steps, 1000)
    assert (len(timesteps), timesteps[0]) == (steps, 999)
    assert timesteps[-1] >= 0
    assert len(spaced("dpmpp_2m", steps, "trailing").draws) == steps


@pytest.mark.parametrize("spacing", [None, *SPACINGS])
@pytest.mark.parametrize("name", sorted(SPACED_SCHEDULERS))
def test_all_numbers_of_steps_give_finite_plans(name: str, spacing: str | None) -> None:
    for steps in (1, 2, 3, 7, 33, 61, 122, 150):
        plan = make_noise_plan(name, steps, CONFIG, Schedule(timestep_spacing=spacing))
        assert torch.isfinite(plan.coefficients).all(), (steps, spacing)
        assert len(plan.draws) == steps + (name == "pndm" and steps > 1)


@pytest.mark.parametrize("name", sorted(TIMESTEP_SCHEDULERS))
def test_every_list_gives_a_finite_plan(name: str) -> None:
    for timesteps in (LIST, (999,), (0,), (1, 0), (999, 998, 1), tuple(range(999, 849, -1)), tuple(range(149, -1, -1))):
        plan = listed(name, timesteps)
        assert torch.isfinite(plan.coefficients).all(), timesteps
        assert any(plan.draws) <= (name in DRAWING)


def test_a_list_that_a_noise_scheduler_cannot_take_is_an_invalid_request() -> None:
    with pytest.raises(Invalid) as caught:
        listed("dpmpp_2m_karras", LIST)
    assert caught.value.code == "timesteps_not_supported"
