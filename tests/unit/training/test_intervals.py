"""Wilson intervals against SciPy's, and at the ends."""

import numpy as np
import pytest
from scipy.stats import binomtest

from app.training.intervals import wilson, wilson_bounds


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (88, 153), (145, 153), (0, 200), (200, 200), (3, 100_000)])
def test_wilson_equals_scipys(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    interval = wilson(right, n)
    assert (interval.value, interval.n) == (right / n, n)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1


def test_many_at_once_equal_one_at_a_time() -> None:
    right, n = np.array([0.0, 3.0, 29.0]), np.array([4.0, 10.0, 29.0])
    lows, highs = wilson_bounds(right, n)
    each = [wilson(int(k), int(m)) for k, m in zip(right, n, strict=True)]
    assert list(zip(lows, highs, strict=True)) == [(one.low, one.high) for one in each]


def test_the_interval_of_the_ants_and_bees_contains_the_majority_class() -> None:
    """The figures of the trial: 0.575 on 153 images, 95 % interval 0.493 to 0.655 there (Clopper-Pearson)."""
    interval = wilson(88, 153)
    assert interval.low == pytest.approx(0.496, abs=1e-3)
    assert interval.low < 83 / 153 < interval.high


@pytest.mark.parametrize(("right", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_counts_out_of_range_are_refused(right: int, n: int) -> None:
    with pytest.raises(ValueError, match="at least one image"):
        wilson(right, n)
