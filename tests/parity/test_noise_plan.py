"""Our fused update against the `step` of diffusers' own objects, with a stub in the model's place.

The stub takes elementwise products, sums and quotients only, which IEEE 754 rounds alike wherever an element lies, so
what is compared is the noise schedulers alone. Tolerances, relative to the largest value of a step's sample, at every
step: 2e-6 to diffusers in float32, and 1e-6 to diffusers in float64 (see `_Exact`), from which diffusers in float32 is
as far away itself. Rows alone and rows in a batch are compared bit for bit.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

import app.modelpacks.demo
from app.engine.diffusion.noise.plan import REMEMBERED, SCHEDULER_REMEMBERED, NoisePlan, make_noise_plan
from app.engine.diffusion.noise.schedulers import NOISE_SCHEDULERS, make_noise_scheduler
from app.engine.diffusion.noise.update import advance, scale_inputs
from app.errors import Invalid
from testing.tiny import NOISE_SCHEDULER

SHAPE = (1, 4, 5, 3)  # sixty elements: no multiple of a vector register
STEPS = [1, 2, 3, 7, 20, 50]
TO_FLOAT32 = 2e-6
TO_FLOAT64 = 1e-6

DEMO = Path(app.modelpacks.demo.__file__).parent / "pack" / "diffusion" / "scheduler" / "scheduler_config.json"
CONFIGS: dict[str, Mapping[str, object]] = {
    "demo": json.loads(DEMO.read_text()),
    # its DDIM would clip where the key is left out, which no plan can say
    "sd15": {**NOISE_SCHEDULER, "clip_sample": False},
}


class _Exact(TorchFunctionMode):
    """Lets diffusers compute in float64 throughout: no cast to float32, and the noise of float32's stream."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn:
            return func(*args, **{**kwargs, "dtype": torch.float32}).double()
        if func is torch.Tensor.to and args[0].dtype == torch.float64 and args[0].ndim == 4:
            return args[0]
        return func(*args, **kwargs)


def stub(scaled_samples: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """A model whose output bends with the sample and moves with the timestep."""
    times = timesteps.to(scaled_samples.dtype)[:, None, None, None] / 1000
    return (1.5 - times) * scaled_samples / (1 + 0.25 * scaled_samples * scaled_samples) + 0.25 * times


def run_upstream(
    name: str, num_steps: int, config: Mapping[str, object], dtype: torch.dtype, generator: torch.Generator
) -> list[torch.Tensor]:
    """Every sample, from the initial noise on, as diffusers' loop makes them."""
    noise_scheduler = make_noise_scheduler(name, config)
    noise_scheduler.set_timesteps(num_steps)
    takes_generator = "generator" in inspect.signature(noise_scheduler.step).parameters
    kwargs = {"generator": generator} if takes_generator else {}
    samples = [torch.randn(SHAPE, generator=generator).to(dtype) * noise_scheduler.init_noise_sigma]
    for timestep in noise_scheduler.timesteps:
        scaled = noise_scheduler.scale_model_input(samples[-1], timestep)
        output = stub(scaled, timestep[None])
        samples.append(noise_scheduler.step(output, timestep, samples[-1], **kwargs, return_dict=False)[0])
    return samples


@dataclass
class Row:
    """One image on its way through `advance`."""

    plan: NoisePlan
    generator: torch.Generator
    index: int = 0
    state: torch.Tensor = field(default_factory=lambda: torch.zeros(1 + REMEMBERED, *SHAPE[1:]))

    def __post_init__(self) -> None:
        self.state[0] = torch.randn(SHAPE, generator=self.generator)[0] * self.plan.init_noise_sigma

    @property
    def is_finished(self) -> bool:
        return self.index == len(self.plan.draws)


def make_row(name: str, num_steps: int, config: str = "demo", seed: int = 7) -> Row:
    return Row(make_noise_plan(name, num_steps, CONFIGS[config]), torch.Generator().manual_seed(seed))


def step(rows: list[Row]) -> None:
    """One step of a batch, the way a runner takes it."""
    states = torch.stack([row.state for row in rows])
    scales = torch.stack([row.plan.input_scales[row.index] for row in rows])
    timesteps = torch.stack([row.plan.timesteps[row.index].float() for row in rows])
    outputs = stub(scale_inputs(states[:, 0], scales), timesteps)
    draws = [row.plan.draws[row.index] for row in rows]
    noises = torch.zeros_like(outputs) if any(draws) else None
    for position, row in enumerate(rows):
        if noises is not None and draws[position]:
            noises[position] = torch.randn(SHAPE, generator=row.generator)[0]
    coefficients = torch.stack([row.plan.coefficients[row.index] for row in rows])
    for row, state in zip(rows, advance(states, outputs, noises, coefficients), strict=True):
        row.state = state
        row.index += 1


def run_alone(row: Row) -> Iterator[torch.Tensor]:
    """Every state, from the initial noise on."""
    yield row.state
    while not row.is_finished:
        step([row])
        yield row.state


def equal_bytes(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool(torch.equal(left.contiguous().view(torch.int32), right.contiguous().view(torch.int32)))


def distance(samples: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The largest difference at any step, relative to that step's largest value."""
    assert len(samples) == len(expected)
    pairs = zip(samples, expected, strict=True)
    return max(float((left.double() - right).abs().max() / right.abs().max()) for left, right in pairs)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("num_steps", STEPS)
@pytest.mark.parametrize("name", NOISE_SCHEDULERS)
def test_every_sample_is_that_of_diffusers(name: str, num_steps: int, config: str) -> None:
    generators = [torch.Generator().manual_seed(7) for _ in range(2)]
    float32 = run_upstream(name, num_steps, CONFIGS[config], torch.float32, generators[0])
    with _Exact():
        float64 = run_upstream(name, num_steps, CONFIGS[config], torch.float64, generators[1])

    row = make_row(name, num_steps, config)
    samples = [state[:1] for state in run_alone(row)]

    assert equal_bytes(samples[0], float32[0])
    assert distance(samples, float32) < TO_FLOAT32
    assert distance(samples, float64) < max(TO_FLOAT64, 2 * distance(float32, float64))
    assert torch.equal(row.generator.get_state(), generators[0].get_state()), "the noise is the same stream's"


@pytest.mark.parametrize("name", NOISE_SCHEDULERS)
def test_timesteps_and_scales_are_those_of_diffusers(name: str) -> None:
    plan = make_noise_plan(name, 7, CONFIGS["demo"])
    noise_scheduler = make_noise_scheduler(name, CONFIGS["demo"])
    noise_scheduler.set_timesteps(7)
    assert torch.equal(plan.timesteps, noise_scheduler.timesteps)
    assert plan.timesteps.dtype == noise_scheduler.timesteps.dtype
    assert plan.init_noise_sigma == float(noise_scheduler.init_noise_sigma)
    first = noise_scheduler.scale_model_input(torch.ones(SHAPE), noise_scheduler.timesteps[0])
    torch.testing.assert_close(scale_inputs(torch.ones(SHAPE), plan.input_scales[:1]), first, rtol=2e-7, atol=0)


def test_only_the_ancestral_ones_draw_and_consistency_models_not_in_the_end() -> None:
    draws = {name: make_noise_plan(name, 3, CONFIGS["demo"]).draws for name in NOISE_SCHEDULERS}
    assert {name for name, drawn in draws.items() if any(drawn)} == {"euler_a", "lcm", "tcd"}
    assert draws["euler_a"] == (True, True, True)
    assert draws["lcm"] == draws["tcd"] == (True, True, False)


def test_rows_that_join_midway_equal_single_rows_bitwise() -> None:
    """All noise schedulers at different step counts, one more row every other step, and their places change."""
    arguments = [(name, 4 + 3 * index, "demo", index) for index, name in enumerate(NOISE_SCHEDULERS)] * 2
    waiting = [(make_row(*argument), argument) for argument in arguments]
    running: list[tuple[Row, tuple[str, int, str, int]]] = []
    finished = 0
    tick = 0
    while waiting or running:
        if waiting and tick % 2 == 0:
            running.insert(tick % 3, waiting.pop())
        step([row for row, _ in running])
        for row, argument in running:
            if row.is_finished:
                *_, expected = run_alone(make_row(*argument))
                assert equal_bytes(row.state, expected)
                finished += 1
        running = [(row, argument) for row, argument in running if not row.is_finished]
        tick += 1
    assert finished == 2 * len(NOISE_SCHEDULERS)


@pytest.mark.parametrize("size", [(4, 16, 16), (4, 5, 3), (1, 1, 1)])
def test_a_row_does_not_depend_on_its_batch(size: tuple[int, int, int]) -> None:
    """Signs of zero and values that are not numbers included, and whether others draw noise."""
    generator = torch.Generator().manual_seed(1)
    states, outputs, noises, coefficients = make_batch(17, size, generator)
    coefficients[:9, :, 2] = 0
    coefficients[:3] = 0
    states[1] *= -1e-30
    states[2, 0] = -0.0
    outputs[3] = torch.nan
    states[4, 2] = torch.inf

    together = advance(states, outputs, noises, coefficients)

    for index in range(17):
        row = slice(index, index + 1)
        own_noise = noises[row] if index >= 9 else None
        assert equal_bytes(advance(states[row], outputs[row], own_noise, coefficients[row]), together[row])
    assert equal_bytes(advance(states[:9], outputs[:9], None, coefficients[:9]), together[:9])
    order = torch.randperm(17, generator=generator)
    shuffled = advance(states[order], outputs[order], noises[order], coefficients[order])
    assert equal_bytes(shuffled, together[order])
    is_finite = torch.isfinite(together).flatten(1).all(dim=1)
    assert [index for index in range(17) if not is_finite[index]] == [3, 4]


def make_batch(num_rows: int, size: tuple[int, int, int], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
    """States, model outputs, noises and coefficients at random."""
    shapes = [
        (num_rows, 1 + REMEMBERED, *size),
        (num_rows, *size),
        (num_rows, *size),
        (num_rows, 1 + REMEMBERED, 3 + REMEMBERED),
    ]
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def test_inputs_are_not_changed() -> None:
    batch = make_batch(3, (4, 5, 3), torch.Generator().manual_seed(1))
    before = [tensor.clone() for tensor in batch]
    states, outputs, noises, coefficients = batch
    advance(states, outputs, noises, coefficients)
    assert all(equal_bytes(tensor, copy) for tensor, copy in zip(batch, before, strict=True))


def test_plans_are_made_once_and_not_changed_by_use() -> None:
    plan = make_noise_plan("unipc", 7, CONFIGS["demo"])
    before = plan.coefficients.clone(), plan.input_scales.clone(), plan.timesteps.clone()
    list(run_alone(make_row("unipc", 7)))
    assert make_noise_plan("unipc", 7, dict(reversed(list(CONFIGS["demo"].items())))) is plan
    assert make_noise_plan("unipc", 8, CONFIGS["demo"]) is not plan
    assert make_noise_plan("unipc", 7, CONFIGS["sd15"]) is not plan
    assert all(map(torch.equal, before, (plan.coefficients, plan.input_scales, plan.timesteps)))


def test_all_remembered_tensors_are_needed() -> None:
    used = {
        name: int(make_noise_plan(name, 20, CONFIGS["demo"]).coefficients[:, 1:].any(dim=2).any(dim=0).sum())
        for name in NOISE_SCHEDULERS
    }
    assert max(used.values()) == SCHEDULER_REMEMBERED
    assert used == {
        "pndm": 3, "ddim": 0, "euler": 0, "euler_a": 0, "dpmpp_2m": 1, "dpmpp_2m_karras": 1, "unipc": 3, "lcm": 0,
        "tcd": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "num_steps", "code"),
    [
        ("heun", 7, "unknown_noise_scheduler"),
        ("lcm", 51, "unsupported_num_inference_steps"),
        ("tcd", 51, "unsupported_num_inference_steps"),
        ("ddim", 1001, "unsupported_num_inference_steps"),
        ("dpmpp_2m", 1001, "unsupported_num_inference_steps"),  # diffusers would divide by zero
    ],
)
def test_unsupported_steps_of_a_noise_scheduler_are_an_invalid_request(name: str, num_steps: int, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        make_noise_plan(name, num_steps, CONFIGS["demo"])
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("ddim", {"clip_sample": True}, "not linear"),
        ("lcm", {"clip_sample": True}, "not linear"),
        ("dpmpp_2m", {"thresholding": True}, "not linear"),
        ("unipc", {"thresholding": True}, "not linear"),
        ("unipc", {"solver_order": 3}, "remembers more than 3"),
    ],
)
def test_a_config_that_is_not_linear_is_rejected(name: str, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_noise_plan(name, 7, {**CONFIGS["demo"], **changes})


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc", "lcm", "tcd"])
def test_other_prediction_types_are_read_off_too(name: str, prediction_type: str) -> None:
    config = {**CONFIGS["demo"], "prediction_type": prediction_type}
    expected = run_upstream(name, 7, config, torch.float32, torch.Generator().manual_seed(7))
    row = Row(make_noise_plan(name, 7, config), torch.Generator().manual_seed(7))
    assert distance([state[:1] for state in run_alone(row)], expected) < TO_FLOAT32
