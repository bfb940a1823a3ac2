"""Choosing a row budget from a cost curve; arithmetic alone."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.engine.request import MIN_ROWS
from app.engine.scheduling.row_budget import RowBudget

SHAPE = (8, 8)


@pytest.mark.parametrize(
    ("curve", "rows"),
    [
        # rows/s: 20, 27, 29.6, 30 where measured, 29.2 for 7 rows; 8 are within 2 % of 30
        ({2: 0.10, 4: 0.148, 8: 0.27, 16: 0.533}, 8),
        # a device that one row already fills
        ({1: 0.1, 2: 0.2, 4: 0.4, 8: 0.8}, 2),
        # a device that launches dominate: as many as were measured
        ({2: 0.1, 4: 0.1, 8: 0.1}, 8),
        # rows/s: 10 ... 24.7 for 7 rows, 26.7 for 8: none but the last is within 2 % of it
        ({2: 0.2, 8: 0.3}, 8),
    ],
)
def test_the_budget_is_the_fewest_rows_that_are_about_as_fast_as_can_be(curve: dict[int, float], rows: int) -> None:
    assert RowBudget(curve, SHAPE).rows(SHAPE) == rows


def test_row_counts_between_the_measured_ones_count_too() -> None:
    budget = RowBudget({2: 0.5, 4: 0.6, 8: 1.19}, SHAPE, max_step_s=2.0)
    # rows/s: 4, 5.45 (3), 6.67 (4), then about 6.7: four are enough
    assert budget.rows(SHAPE) == 4
    assert budget.seconds(SHAPE, 3) == pytest.approx(0.55)
    assert budget.seconds(SHAPE, 6) == pytest.approx((0.6 + 1.19) / 2)


def test_a_step_stays_under_the_bound() -> None:
    curve = {2: 0.4, 4: 0.6, 8: 1.0, 16: 1.8}
    # rows/s: 5, 5.8, 6.7, 7.1, 7.5, 7.8, 8 from 2 to 8 rows, then 8.75 for 14 and up to 8.9
    assert RowBudget(curve, SHAPE, max_step_s=2.0).rows(SHAPE) == 14
    assert RowBudget(curve, SHAPE, max_step_s=1.0).rows(SHAPE) == 8
    assert RowBudget(curve, SHAPE, max_step_s=0.8).rows(SHAPE) == 6
    assert RowBudget(curve, SHAPE, max_step_s=0.1).rows(SHAPE) == MIN_ROWS, "one guided request always fits"


def test_rows_that_padding_would_add_anyway_are_taken() -> None:
    # rows/s: 20 ... 40 for 4 rows; 39.1 for 9, which cost as much as the 10, 11 and 12 that forwards have
    curve = {2: 0.1, 3: 0.1, 4: 0.1, **dict.fromkeys(range(5, 13), 0.23)}
    assert RowBudget(curve, SHAPE).rows(SHAPE) == 12
    assert RowBudget(curve, SHAPE, max_step_s=0.2).rows(SHAPE) == 4


def test_other_shapes_cost_by_their_pixels() -> None:
    budget = RowBudget({2: 0.2, 4: 0.3, 8: 0.5}, SHAPE, max_step_s=0.9)
    assert budget.seconds((16, 16), 8) == pytest.approx(4 * 0.5)
    assert budget.seconds((8, 4), 8) == pytest.approx(0.1 + 0.4 / 2), "the 0.1 s are for launches and weights"
    assert budget.rows(SHAPE) == 8
    assert budget.rows((16, 16)) == 2, "0.8 s; three rows would take a second"
    assert budget.rows((4, 4)) == 8


def test_rows_that_cannot_share_a_forward_cost_one_each() -> None:
    small = (4, 4)

    def forwards(shape: tuple[int, ...], rows: int) -> list[int]:
        return [rows] if shape == SHAPE else [2] * math.ceil(rows / 2)

    budget = RowBudget({2: 0.2, 4: 0.3, 8: 0.5}, SHAPE, forwards=forwards)
    assert budget.seconds(small, 8) == pytest.approx(4 * (0.1 + 0.1 / 4))
    assert budget.rows(small) == MIN_ROWS, "more make each step longer, and none faster"
    assert budget.rows(SHAPE) == 8


def test_beyond_the_measurements_fewer_rows_cost_the_same_and_more_in_proportion() -> None:
    budget = RowBudget({2: 0.2, 8: 0.4}, SHAPE)
    assert budget.seconds(SHAPE, 1) == pytest.approx(0.2)
    assert budget.seconds(SHAPE, 16) == pytest.approx(0.8)


def test_a_measurement_that_was_disturbed_counts_no_more_than_one_of_more_rows() -> None:
    budget = RowBudget({2: 5.0, 4: 0.2, 8: 0.4}, SHAPE)
    assert budget.seconds(SHAPE, 2) == pytest.approx(0.2)
    assert budget.rows(SHAPE) == 4


@pytest.mark.parametrize("curve", [{}, {2: 0.0}, {4: -1.0, 8: math.nan}, {8: math.inf}, {0: 0.1, -2: 0.1}])
def test_a_curve_without_possible_measurements_gives_the_smallest_budget(curve: dict[int, float]) -> None:
    budget = RowBudget(curve, SHAPE)
    assert budget.rows(SHAPE) == budget.rows((1, 1)) == budget.rows((64, 64)) == MIN_ROWS
    assert budget.seconds((16, 16), 2) == 4 * budget.seconds(SHAPE, 2) > 0


sides = st.tuples(st.integers(1, 128), st.integers(1, 128))


@given(
    curve=st.dictionaries(st.integers(-1, 24), st.floats(-0.1, 10.0), max_size=6),
    shapes=st.tuples(sides, sides),
    max_step_s=st.floats(0.01, 5.0),
)
def test_any_curve_gives_a_usable_budget(
    curve: dict[int, float], shapes: tuple[tuple[int, int], tuple[int, int]], max_step_s: float
) -> None:
    measured, asked = shapes
    budget = RowBudget(curve, measured, max_step_s=max_step_s)
    rows = budget.rows(asked)
    assert MIN_ROWS <= rows <= max(24, MIN_ROWS)
    assert rows == MIN_ROWS or budget.seconds(asked, rows) <= max_step_s
    costs = [budget.seconds(asked, rows) for rows in range(1, 30)]
    assert all(0 < cost < math.inf for cost in costs)
    assert all(fewer <= more * (1 + 1e-9) for fewer, more in itertools.pairwise(costs))
