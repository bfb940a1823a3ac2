"""Calibration and row padding with fake forwards: measurements, conclusions, and the rows of each forward."""

from collections.abc import Callable, Collection
from itertools import count
from typing import Any

import pytest
import torch
from torch import nn

from app.engine.diffusion.calibration import Calibration, Meter, Probe, still_holds
from app.engine.diffusion.invariance import FIXED_ROWS, FixedRowsLinear
from app.engine.diffusion.options import ANY_ROWS, MAX_ROWS, ROW_BUCKETS, RowPadding


class Device:
    """A clock that forwards move on, `cost(rows)` seconds each.

    Attributes:
        differs_at: The numbers of rows at which results are others.
        depends_on_position: Whether the last row's result differs from the first's.
        first_cost: Additional seconds of the first forward of each number of rows.
        disturbances: Seconds that other processes take from the next forwards, in order.
        waited: Seconds that they took so far.
    """

    def __init__(self, cost: Callable[[int], float], differs_at: Collection[int] = ()) -> None:
        self.differs_at = differs_at
        self.depends_on_position = False
        self.first_cost = 0.0
        self.disturbances: list[float] = []
        self.waited = 0.0
        self.now = 0.0
        self.forwards: list[int] = []
        self._cost = cost

    def forward(self, rows: int) -> torch.Tensor:
        lost_s = self.disturbances.pop(0) if self.disturbances else 0.0
        self.now += self._cost(rows) + (self.first_cost if rows not in self.forwards else 0.0) + lost_s
        self.waited += lost_s
        self.forwards.append(rows)
        value = 1.0 + 1e-6 * rows if rows in self.differs_at else 1.0
        return torch.tensor([value, value + 1e-6 if self.depends_on_position else value])

    def meter(self) -> Meter:
        return Meter(lambda: self.now, lambda: self.waited)


def calibrate(device: Device, time_limit_s: float, **options: Any) -> Calibration:
    return Probe(device.forward, time_limit_s, device.meter(), **options).complete()


def test_every_number_of_rows_is_measured_after_a_forward_that_does_not_count() -> None:
    device = Device(lambda rows: 0.001 * rows)
    calibration = calibrate(device, 10.0)

    every = range(2, MAX_ROWS + 1)
    assert device.forwards == [2, *every]
    assert calibration.seconds == pytest.approx({rows: 0.001 * rows for rows in every})
    assert calibration.padding == RowPadding(ANY_ROWS)
    assert calibration.is_invariant


def test_disturbed_measurements_do_not_change_the_line() -> None:
    disturbed = {3: 0.1, 4: 0.05, 9: 0.2, 30: 0.3}
    device = Device(lambda rows: 0.01 + 0.004 * rows + disturbed.get(rows, 0.0))
    calibration = calibrate(device, 10.0)

    assert calibration.seconds == pytest.approx({rows: 0.01 + 0.004 * rows for rows in range(2, MAX_ROWS + 1)})


def test_a_forward_without_its_cores_is_run_again_and_does_not_count() -> None:
    device = Device(lambda rows: 0.01 * rows)
    device.disturbances = [0, 0, 0.5, 0, 0.7, 0.7]  # of two rows untimed and timed, of three twice, of four twice
    calibration = calibrate(device, 10.0, sizes=(2, 3, 4, 5))

    assert device.forwards == [2, 2, 3, 3, 4, 4, 4, 5]
    assert calibration.seconds == pytest.approx({2: 0.02, 3: 0.03, 4: 0.04, 5: 0.05})
    assert not calibration.is_disturbed


def test_a_measurement_without_its_cores_is_marked_and_allows_what_is_invariant() -> None:
    device = Device(lambda rows: 0.01 * rows, differs_at=[4])
    device.disturbances = [0.0, *[0.3] * 100]
    calibration = calibrate(device, 3.0, sizes=(2, 3, 4, 5))

    assert calibration.is_disturbed
    assert calibration.is_invariant
    assert calibration.padding == RowPadding((2, 3, 5))
    assert device.forwards == [2, *[2] * 3, 4, 3, 5], "the others are tried once, the doubled number first"


def test_in_little_time_on_a_busy_machine_many_rows_are_allowed() -> None:
    device = Device(lambda rows: 0.01 * rows)
    device.disturbances = [0.5] * 100
    calibration = calibrate(device, 1.5, warms_up=True)

    assert device.forwards == [2, 2, 4, 8, 16, 32]
    assert calibration.padding == RowPadding((2, 4, 8, 16, 32))
    assert calibration.is_disturbed
    assert list(calibration.seconds) == list(range(2, 33))


def test_a_measurement_can_be_stopped_between_two_forwards() -> None:
    device = Device(lambda rows: 0.01 * rows)
    probe = Probe(device.forward, 10.0, device.meter(), sizes=(2, 3), warms_up=True)
    seen = []
    while probe.advance():
        seen.append(list(device.forwards))
    assert seen == [[2], [2, 2], [2, 2, 3], [2, 2, 3, 3]]
    assert probe.result().seconds == pytest.approx({2: 0.02, 3: 0.03})


def test_rows_that_were_not_tried_in_time_are_not_used() -> None:
    device = Device(lambda _: 0.4)
    calibration = calibrate(device, 1.0)

    assert device.forwards == [2, 2, 3, 4]
    assert calibration.padding == RowPadding(tuple(range(2, 5)))


def test_a_slow_device_is_tried_with_two_rows() -> None:
    device = Device(lambda _: 20.0)
    calibration = calibrate(device, 1.0)

    assert device.forwards == [2, 2]
    assert calibration.seconds == {2: 20.0}
    assert calibration.padding == RowPadding(tuple(range(2, 3)))


def test_numbers_of_rows_that_change_a_result_are_left_out() -> None:
    odd = range(3, MAX_ROWS + 1, 2)
    device = Device(lambda rows: 0.001 * rows, odd)
    calibration = calibrate(device, 10.0)

    assert calibration.padding == RowPadding(tuple(range(2, MAX_ROWS + 1, 2)))
    assert calibration.seconds[5] == pytest.approx(0.006), "padding has a cost"
    assert calibration.is_invariant


@pytest.mark.parametrize("differs_at", [range(3, MAX_ROWS + 1), range(9, MAX_ROWS + 1), [5]])
@pytest.mark.parametrize("time_limit_s", [0.0, 0.01, 10.0])
def test_results_are_those_of_two_rows_however_much_time_there_was(
    differs_at: Collection[int], time_limit_s: float
) -> None:
    device = Device(lambda rows: 0.001 * rows, differs_at)
    calibration = calibrate(device, time_limit_s)

    alone = device.forward(2)
    assert all(torch.equal(device.forward(rows), alone) for rows in calibration.padding.sizes)
    assert calibration.is_invariant


def test_results_that_never_repeat_are_not_invariant() -> None:
    results = count()
    calibration = Probe(lambda _: torch.full((2,), float(next(results))), 10.0, sizes=(2, 3)).complete()

    assert calibration.padding == RowPadding((2,))
    assert not calibration.is_invariant


def test_the_memory_bounds_the_rows() -> None:
    def cost(rows: int) -> float:
        if rows == 6:
            raise torch.OutOfMemoryError
        return 0.001 * rows

    device = Device(cost)
    calibration = calibrate(device, 10.0)

    assert calibration.padding == RowPadding(tuple(range(2, 6)))
    assert list(calibration.seconds) == [2, 3, 4, 5]


def test_without_batch_invariance_results_may_depend_on_the_number_of_rows() -> None:
    device = Device(lambda rows: 0.001 * rows, range(3, MAX_ROWS + 1))
    calibration = calibrate(device, 10.0, must_match=False)

    assert calibration.padding == RowPadding(ANY_ROWS)
    assert not calibration.is_invariant


def test_buckets_that_fit_into_memory_are_measured_without_their_warm_up() -> None:
    def cost(rows: int) -> float:
        if rows == 16:
            raise torch.OutOfMemoryError
        return 0.001 * rows

    device = Device(cost)
    device.first_cost = 50.0
    calibration = calibrate(device, 10.0, sizes=ROW_BUCKETS, must_match=False, warms_up=True)

    assert calibration.padding == RowPadding((2, 4, 8, 12))
    in_between = {2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8, 9: 12, 10: 12, 11: 12, 12: 12}
    assert calibration.seconds == pytest.approx({rows: 0.001 * size for rows, size in in_between.items()})


@pytest.mark.parametrize("differs_at", [(), (3,)])
def test_a_result_that_depends_on_the_row_position_is_not_invariant(differs_at: Collection[int]) -> None:
    device = Device(lambda rows: 0.001 * rows, differs_at)
    device.depends_on_position = True
    assert not calibrate(device, 10.0).is_invariant


def known(*sizes: int) -> Calibration:
    return Calibration(dict.fromkeys(sizes, 0.1), RowPadding(sizes), is_invariant=True)


def test_a_known_calibration_is_tested_with_its_fewest_and_its_most_rows() -> None:
    device = Device(lambda _: 1.0, range(9, 33))
    assert still_holds(device.forward, known(2, 4, 8))
    assert device.forwards == [2, 8]
    assert not still_holds(device.forward, known(2, 4, 8, 12))


def test_a_calibration_of_one_number_of_rows_needs_no_test() -> None:
    device = Device(lambda _: 1.0, range(2, 33))
    assert still_holds(device.forward, known(8))
    assert device.forwards == []


@pytest.mark.parametrize(
    ("padding", "rows", "blocks"),
    [
        (RowPadding(ANY_ROWS), 1, [[0, 0]]),
        (RowPadding(ANY_ROWS), 2, [[0, 1]]),
        (RowPadding(ANY_ROWS), 5, [[0, 1, 2, 3, 4]]),
        (RowPadding((2, 3, 4)), 5, [[0, 1, 2, 3], [4, 0]]),
        (RowPadding((4,)), 1, [[0, 0, 0, 0]]),
        (RowPadding((4,)), 4, [[0, 1, 2, 3]]),
        (RowPadding((4,)), 6, [[0, 1, 2, 3], [4, 5, 0, 0]]),
        (RowPadding((2, 4, 8)), 3, [[0, 1, 2, 0]]),
        (RowPadding((2, 4, 8)), 5, [[0, 1, 2, 3, 4, 0, 0, 0]]),
        (RowPadding((2, 4, 8)), 9, [[0, 1, 2, 3, 4, 5, 6, 7], [8, 0]]),
    ],
)
def test_rows_are_padded_into_forwards(padding: RowPadding, rows: int, blocks: list[list[int]]) -> None:
    assert padding.blocks(rows) == blocks
    assert padding.forwards(rows) == [len(block) for block in blocks]


@pytest.mark.parametrize("rows", [1, 2, FIXED_ROWS, FIXED_ROWS + 1, 3 * FIXED_ROWS])
def test_a_fixed_linear_layer_is_batch_invariant(rows: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 128)
    fixed, inputs = FixedRowsLinear(linear), torch.randn(rows, 96)

    together = fixed(inputs)
    assert together.shape == (rows, 128)
    assert torch.allclose(together, linear(inputs), atol=1e-5)
    for index in range(rows):
        assert torch.equal(fixed(inputs[index : index + 1])[0], together[index])
