"""Calibration and padding with fake forwards: what is measured, what is concluded, how rows are put into forwards."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from app.engine.calibration import MOST_ROWS, calibrate
from app.engine.invariance import FALLBACK_ROWS, FIXED_ROWS, FixedRowsLinear, RowPadding


class Device:
    """A clock that forwards move on, `cost(rows)` seconds each."""

    def __init__(self, cost: Callable[[int], float], depends_from: int | None = None) -> None:
        self.now = 0.0
        self.forwards: list[int] = []
        self._cost = cost
        self._depends_from = depends_from

    def forward(self, rows: int) -> torch.Tensor:
        self.forwards.append(rows)
        self.now += self._cost(rows)
        is_other = self._depends_from is not None and rows >= self._depends_from
        return torch.tensor([1.0 + 1e-7 * rows if is_other else 1.0])

    def clock(self) -> float:
        return self.now


def test_every_number_of_rows_is_measured_after_a_forward_that_does_not_count() -> None:
    device = Device(lambda rows: 0.001 * rows)
    calibration = calibrate(device.forward, 10.0, device.clock)

    every = range(2, MOST_ROWS + 1)
    assert device.forwards == [2, *every]
    assert calibration.seconds == pytest.approx({rows: 0.001 * rows for rows in every})
    assert calibration.padding == RowPadding(most=MOST_ROWS)


def test_rows_that_were_not_tried_in_time_are_not_used() -> None:
    device = Device(lambda _: 0.4)
    calibration = calibrate(device.forward, 1.0, device.clock)

    assert device.forwards == [2, 2, 3, 4]
    assert calibration.padding == RowPadding(most=4)


def test_a_slow_device_is_tried_with_two_rows() -> None:
    device = Device(lambda _: 20.0)
    calibration = calibrate(device.forward, 1.0, device.clock)

    assert device.forwards == [2, 2]
    assert calibration.seconds == {2: 20.0}
    assert calibration.padding == RowPadding(most=2)


def test_forwards_stay_below_the_number_of_rows_that_changes_a_result() -> None:
    device = Device(lambda rows: 0.001 * rows, depends_from=12)
    calibration = calibrate(device.forward, 10.0, device.clock)

    assert calibration.padding == RowPadding(most=11)
    assert max(calibration.seconds) == 11


@pytest.mark.parametrize("depends_from", [3, FALLBACK_ROWS])
def test_where_few_rows_change_a_result_every_forward_has_the_same_number(depends_from: int) -> None:
    device = Device(lambda rows: 0.001 * rows, depends_from)
    calibration = calibrate(device.forward, 10.0, device.clock)

    assert calibration.padding == RowPadding(most=FALLBACK_ROWS, least=FALLBACK_ROWS)
    assert calibration.seconds == pytest.approx({FALLBACK_ROWS: 0.001 * FALLBACK_ROWS})


def test_the_memory_bounds_the_rows() -> None:
    def cost(rows: int) -> float:
        if rows == 6:
            raise torch.OutOfMemoryError
        return 0.001 * rows

    device = Device(cost)
    calibration = calibrate(device.forward, 10.0, device.clock)

    assert calibration.padding == RowPadding(most=5)
    assert list(calibration.seconds) == [2, 3, 4, 5]


def test_where_bytes_are_not_promised_rows_may_depend_on_their_number() -> None:
    device = Device(lambda rows: 0.001 * rows, depends_from=3)
    calibration = calibrate(device.forward, 10.0, device.clock, must_match=False)

    assert calibration.padding == RowPadding(most=MOST_ROWS)


@pytest.mark.parametrize(
    ("padding", "rows", "blocks"),
    [
        (RowPadding(32), 1, [[0, 0]]),
        (RowPadding(32), 2, [[0, 1]]),
        (RowPadding(32), 5, [[0, 1, 2, 3, 4]]),
        (RowPadding(4), 5, [[0, 1, 2, 3], [4, 0]]),
        (RowPadding(4, 4), 1, [[0, 0, 0, 0]]),
        (RowPadding(4, 4), 4, [[0, 1, 2, 3]]),
        (RowPadding(4, 4), 6, [[0, 1, 2, 3], [4, 5, 0, 0]]),
    ],
)
def test_rows_are_put_into_forwards(padding: RowPadding, rows: int, blocks: list[list[int]]) -> None:
    assert padding.blocks(rows) == blocks


@pytest.mark.parametrize("rows", [1, 2, FIXED_ROWS, FIXED_ROWS + 1, 3 * FIXED_ROWS])
def test_a_fixed_linear_layer_gives_each_row_the_same_bytes_in_any_company(rows: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 128)
    fixed, inputs = FixedRowsLinear(linear), torch.randn(rows, 96)

    together = fixed(inputs)
    assert together.shape == (rows, 128)
    assert torch.allclose(together, linear(inputs), atol=1e-5)
    for index in range(rows):
        assert torch.equal(fixed(inputs[index : index + 1])[0], together[index])
