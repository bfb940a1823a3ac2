"""How many UNet rows each step of an image takes, and what admission and quotas make of it."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from app.engine.diffusion.runner import cost_of
from app.image_spec import ImageSpec
from app.step_rows import computed_steps, forecast_name, step_rows

FOX = ImageSpec("a fox", width=64, height=64)


@pytest.mark.parametrize(("steps", "computed"), [(9, 7), (20, 11), (30, 14), (40, 16), (50, 19), (51, 20)])
def test_the_first_four_steps_and_the_last_tenth_are_computed(steps: int, computed: int) -> None:
    pattern = computed_steps(steps)
    assert sum(pattern) == computed
    assert all(pattern[:4])
    assert all(pattern[-math.ceil(steps / 10) :])


def test_gaps_between_computed_steps_only_grow() -> None:
    computed = [index for index, runs in enumerate(computed_steps(150)) if runs]
    gaps = [after - before for before, after in pairwise(computed) if before >= 3]
    middle = gaps[: gaps.index(max(gaps)) + 1]
    assert middle == sorted(middle)


@pytest.mark.parametrize(
    ("scheduler", "rows"), [("pndm", 40), ("ddim", 38), ("dpmpp_2m", 38), ("unipc", 38), ("euler", 38)]
)
def test_balanced_takes_two_fifths_of_the_rows_of_fifty_steps(scheduler: str, rows: int) -> None:
    assert sum(step_rows(scheduler, 50, True, "balanced")) == rows


@pytest.mark.parametrize(
    ("speed", "scheduler", "steps"),
    [("exact", "ddim", 50), ("balanced", "euler_a", 50), ("balanced", "lcm", 9), ("balanced", "ddim", 8)],
)
def test_the_forecast_is_off_where_it_would_not_help(speed: str, scheduler: str, steps: int) -> None:
    assert forecast_name(speed, scheduler, steps) is None
    assert step_rows(scheduler, steps, True, speed) == step_rows(scheduler, steps, True)


def test_outside_of_the_interval_a_step_takes_one_row() -> None:
    assert step_rows("ddim", 10, True, "exact", (0.2, 0.75)) == (1, 1, 2, 2, 2, 2, 2, 1, 1, 1)
    assert step_rows("ddim", 10, False, "exact", (0.2, 0.75)) == (1,) * 10
    assert step_rows("ddim", 10, True, "exact", (0.0, 1.0)) == (2,) * 10
    assert set(step_rows("ddim", 50, True, "balanced", (0.0, 0.5))) == {0, 1, 2}


def test_the_cost_of_an_image_is_the_sum_of_its_rows() -> None:
    spec = replace(FOX, speed="balanced", guidance_interval=(0.0, 0.5))
    cost = cost_of(spec)
    assert cost.rows_left(0) == sum(spec.step_rows)
    assert cost.steps == sum(rows > 0 for rows in spec.step_rows) == 20
    assert cost.rows_left(cost.steps - 1) == 1
    assert cost.rows_left(cost.steps) == 0


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 50),
        ({"scheduler": "ddim"}, 50),
        ({"guidance_scale": 1.0, "scheduler": "ddim"}, 25),
        ({"speed": "balanced"}, 20),
        ({"speed": "balanced", "scheduler": "ddim"}, 19),
        ({"guidance_interval": (0.0, 0.5), "scheduler": "ddim"}, 37.5),
    ],
)
def test_pixel_steps_count_two_rows_as_a_step(changes: dict[str, object], steps: float) -> None:
    assert ImageSpec.from_json({**FOX.to_json(), **changes}).pixel_steps == steps * 64 * 64


def test_settings_that_are_not_used_are_not_part_of_a_file() -> None:
    assert {"speed", "timesteps", "timestep_spacing", "guidance_interval"}.isdisjoint(FOX.to_json())
    used = replace(FOX, speed="balanced", timesteps=(999, 500, 1), num_inference_steps=3, guidance_interval=(0.1, 0.9))
    assert used.to_json()["timesteps"] == [999, 500, 1]
    assert ImageSpec.from_json(used.to_json()) == used
    assert hash(ImageSpec.from_json(used.to_json())) == hash(used)


@pytest.mark.parametrize(
    ("scheduler", "steps", "strength", "taken"),
    [("ddim", 50, 0.75, 37), ("ddim", 10, 1.0, 10), ("pndm", 50, 0.75, 38), ("pndm", 1, 1.0, 1), ("lcm", 4, 0.5, 2)],
)
def test_an_initial_image_is_counted_for_the_steps_that_its_strength_takes(
    scheduler: str, steps: int, strength: float, taken: int
) -> None:
    spec = replace(FOX, scheduler=scheduler, num_inference_steps=steps, strength=strength)
    assert spec.step_rows == (2,) * taken
    assert cost_of(spec).steps == taken
    assert spec.pixel_steps == min(taken, steps) * 64 * 64


def test_a_forecast_counts_the_steps_that_are_taken() -> None:
    spec = replace(FOX, scheduler="ddim", num_inference_steps=40, strength=0.5, speed="balanced")
    assert [rows > 0 for rows in spec.step_rows] == list(computed_steps(20))
    assert replace(spec, num_inference_steps=16).forecast is None


def test_the_guided_interval_is_a_part_of_the_steps_that_are_taken() -> None:
    spec = replace(FOX, scheduler="ddim", num_inference_steps=20, strength=0.5, guidance_interval=(0.0, 0.5))
    assert spec.step_rows == (2,) * 5 + (1,) * 5
