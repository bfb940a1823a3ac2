"""Forecast steps against a model that they must reproduce, and against the steps that they replace.

Stubs stand in for the model. The one whose image is linear in the timestep is what the extrapolation assumes, so there
`balanced` must give what `exact` gives, up to the rounding of float32.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from app.engine.diffusion.noise.plan import REMEMBERED, NoisePlan, Schedule, make_noise_plan
from app.engine.diffusion.noise.update import advance, scale_inputs
from app.step_rows import FORECAST_SCHEDULERS, computed_steps, num_steps
from tests.parity.test_noise_plan import CONFIGS, SHAPE, equal_bytes, stub

CONFIG = CONFIGS["demo"]
TOLERANCE = 1e-6
ALPHAS = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2).cumprod(0)

Model = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def make_plan(name: str, steps: int, *, is_forecast: bool, spacing: str | None = None) -> NoisePlan:
    computed = computed_steps(num_steps(name, steps)) if is_forecast else None
    return make_noise_plan(name, steps, CONFIG, Schedule(timestep_spacing=spacing, is_computed=computed))


def linear_model(scaled: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """A model that predicts an image which moves at a constant speed: its output is the noise that is left."""
    generator = torch.Generator().manual_seed(3)
    start, speed = (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    times = timesteps.double()[:, None, None, None]
    alphas = torch.from_numpy(_interpolated(timesteps))[:, None, None, None]
    x0 = start + speed * times / 1000
    return ((scaled.double() - alphas.sqrt() * x0) / (1 - alphas).sqrt()).float()


def _interpolated(timesteps: torch.Tensor) -> np.ndarray:
    """The noise levels as diffusers' schedulers with sigmas interpolate them between whole timesteps."""
    sigmas = ((1 - ALPHAS) / ALPHAS).sqrt().numpy()
    levels: np.ndarray = 1 / (1 + np.interp(timesteps.double().numpy(), np.arange(1000), sigmas) ** 2)
    return levels


def run(plan: NoisePlan, model: Model, seed: int = 7) -> torch.Tensor:
    """The final sample of one image."""
    state = torch.zeros(1, 1 + REMEMBERED, *SHAPE[1:])
    generator = torch.Generator().manual_seed(seed)
    state[:, 0] = torch.randn(SHAPE, generator=generator) * plan.init_noise_sigma
    for index in range(len(plan.draws)):
        scaled = scale_inputs(state[:, 0], plan.input_scales[index : index + 1])
        output = model(scaled, plan.timesteps[index : index + 1].float())
        state = advance(state, output, None, plan.coefficients[index : index + 1])
    return state[:, 0]


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    return float((left - right).abs().max() / right.abs().max())


@pytest.mark.parametrize("steps", [9, 20, 50])
@pytest.mark.parametrize("name", sorted(FORECAST_SCHEDULERS - {"dpmpp_2m_karras"}))
def test_an_image_that_is_linear_in_time_is_reproduced(name: str, steps: int) -> None:
    exact, balanced = (make_plan(name, steps, is_forecast=is_forecast) for is_forecast in (False, True))
    assert len(balanced.draws) == sum(computed_steps(num_steps(name, steps))) < len(exact.draws)
    assert distance(run(balanced, linear_model), run(exact, linear_model)) < TOLERANCE


@pytest.mark.parametrize("name", sorted(FORECAST_SCHEDULERS))
def test_a_model_that_bends_is_followed_closely_and_not_exactly(name: str) -> None:
    exact, balanced = (run(make_plan(name, 50, is_forecast=is_forecast), stub) for is_forecast in (False, True))
    assert TOLERANCE < distance(balanced, exact) < 0.05


@pytest.mark.parametrize("name", sorted(FORECAST_SCHEDULERS))
def test_a_pattern_that_computes_every_step_is_the_plan_without_a_forecast(name: str) -> None:
    steps = num_steps(name, 12)
    exact = make_plan(name, 12, is_forecast=False)
    folded = make_noise_plan(name, 12, CONFIG, Schedule(is_computed=(True,) * steps))
    assert equal_bytes(folded.coefficients, exact.coefficients)
    assert equal_bytes(run(folded, stub), run(exact, stub))


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc"])
def test_a_forecast_follows_the_other_prediction_types_too(name: str, prediction_type: str) -> None:
    config = {**CONFIG, "prediction_type": prediction_type}
    schedules = Schedule(), Schedule(is_computed=computed_steps(50))
    exact, balanced = (run(make_noise_plan(name, 50, config, schedule), stub) for schedule in schedules)
    assert distance(balanced, exact) < 0.05


@pytest.mark.parametrize("name", ["euler_a", "lcm", "tcd"])
def test_steps_with_fresh_noise_are_not_forecast(name: str) -> None:
    with pytest.raises(ValueError, match="fresh noise"):
        make_noise_plan(name, 20, CONFIG, Schedule(is_computed=computed_steps(20)))


def test_rows_of_both_speeds_in_one_update_are_the_rows_alone() -> None:
    plans = [make_plan(name, 20, is_forecast=on) for name in sorted(FORECAST_SCHEDULERS) for on in (False, True)]
    coefficients = torch.stack([plan.coefficients[5] for plan in plans])
    states = torch.randn(len(plans), 1 + REMEMBERED, *SHAPE[1:], generator=torch.Generator().manual_seed(1))
    outputs = torch.randn(len(plans), *SHAPE[1:], generator=torch.Generator().manual_seed(2))
    together = advance(states, outputs, None, coefficients)
    for index in range(len(plans)):
        row = slice(index, index + 1)
        assert equal_bytes(advance(states[row], outputs[row], None, coefficients[row]), together[row])
