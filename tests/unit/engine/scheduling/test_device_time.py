"""Tests of `app.engine.scheduling.device_time`."""

from collections.abc import Callable

import pytest

from app.engine.request import Priority, Shape
from app.engine.scheduling.device_time import FINISH_ROW_STEPS, LOAD_MEMORY_S, DeviceTime, Load, Work
from app.engine.scheduling.row_budget import RowBudget

SHAPE, SMALL = (16, 16), (8, 8)
# 0.1 s for two rows and 0.05 s for each more: packed steps are cheaper a row.
BUDGET = RowBudget({2: 0.1, 4: 0.2, 8: 0.4, 16: 0.6}, SHAPE)


def seconds(time: DeviceTime, work: Work, max_rows: Callable[[Shape], int] = lambda _shape: 16) -> float | None:
    return time.seconds(work, max_rows, BUDGET.seconds)


def test_a_calibrated_model_is_estimated_before_its_first_step() -> None:
    time = DeviceTime(in_seconds=True)
    alone, packed = Work(SHAPE, row_steps=32, together=2), Work(SHAPE, row_steps=32, together=16)
    assert time.basis(SHAPE) == "calibrated"
    assert seconds(time, alone) == pytest.approx(16 * 0.1)
    assert seconds(time, packed) == pytest.approx(2 * 0.6)
    assert seconds(time, packed, lambda _shape: 2) == seconds(time, alone), "a step takes no more than its budget"


def test_nothing_is_known_of_a_model_without_calibration_and_steps() -> None:
    time = DeviceTime()
    assert (time.basis(SHAPE), seconds(time, Work(SHAPE, 1, 1))) == (None, None)


def test_measured_steps_scale_the_calibration_to_the_machine_as_it_is() -> None:
    time = DeviceTime(in_seconds=True)
    work = Work(SHAPE, row_steps=32, together=16)
    for _ in range(100):
        time.steps.record(SHAPE, BUDGET.seconds(SHAPE, 4), 3 * 0.2)
    assert seconds(time, work) == pytest.approx(3 * 2 * 0.6)
    assert (time.basis(SHAPE), time.basis(SMALL)) == ("measured", "scaled")
    assert seconds(time, Work(SMALL, 32, 16)) == pytest.approx(3 * 2 * BUDGET.seconds(SMALL, 16))

    for _ in range(100):  # a small step costs more than its pixels
        time.steps.record(SMALL, BUDGET.seconds(SMALL, 16), 2 * 0.6)
    assert seconds(time, Work(SMALL, 32, 16)) == pytest.approx(2 * 2 * 0.6)
    assert seconds(time, work) == pytest.approx(3 * 2 * 0.6), "each size keeps its own speed"


def test_an_image_is_finished_in_a_turn_of_its_own() -> None:
    time = DeviceTime(in_seconds=True)
    work = Work(SHAPE, row_steps=0, together=2, finishes=10)
    assert seconds(time, work) == pytest.approx(10 * FINISH_ROW_STEPS * 0.05)
    time.finishes.record(SHAPE, 256, 0.3)
    assert seconds(time, work) == pytest.approx(10 * 0.3)
    assert seconds(time, Work(SMALL, 0, 2, finishes=10)) == pytest.approx(10 * 0.3 / 4)


def test_the_load_is_the_share_of_the_latest_time() -> None:
    now = 0.0
    load = Load(lambda: now)
    assert load.share(Priority.INTERACTIVE) == 0
    for _ in range(1_000):
        now += 0.1
        load.record(Priority.INTERACTIVE, 0.04)
        load.record(Priority.BACKGROUND, 0.05)
    assert load.share(Priority.INTERACTIVE) == pytest.approx(0.4, rel=0.02)
    assert load.share(Priority.BACKGROUND) == pytest.approx(0.5, rel=0.02)
    now += 3 * LOAD_MEMORY_S
    assert load.share(Priority.INTERACTIVE) < 0.05, "a client who has left is forgotten"
