"""Paired comparison: against SciPy and enumeration, coverage on simulated data, groups, degenerate cases."""

import numpy as np
import pytest
from scipy.stats import binomtest

from app.training.comparison import compare_paired, detectable_difference, mcnemar_p


def rights(both: int, first: int, second: int, none: int) -> tuple[np.ndarray, np.ndarray]:
    counts = [both, first, second, none]
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 5), (30, 12), (3, 20), (700, 640), (40_000, 39_000)])
def test_mcnemars_p_equals_scipys_binomial_test(b: int, c: int) -> None:
    expected = binomtest(b, b + c, 0.5).pvalue if b + c else 1.0
    assert mcnemar_p(b, c) == pytest.approx(expected, rel=1e-9)


def test_the_difference_is_that_of_the_accuracies() -> None:
    found = compare_paired(*rights(50, 30, 10, 10))
    assert found.difference.value == pytest.approx(0.2)
    assert (found.num_only_first, found.num_only_second, found.num_groups, found.difference.n) == (30, 10, 100, 100)
    assert found.is_better
    assert not found.is_worse


def test_exchanging_the_two_turns_the_signs() -> None:
    first, second = rights(40, 5, 40, 15)
    found = compare_paired(first, second)
    assert found.is_worse
    assert found.difference.low == pytest.approx(-compare_paired(second, first).difference.high, abs=0.011)


def test_the_interval_equals_a_bootstrap_image_by_image() -> None:
    first, second = rights(60, 25, 15, 20)
    found = compare_paired(first, second).difference
    rng = np.random.default_rng(1)
    gain = first.astype(int) - second.astype(int)
    drawn = gain[rng.integers(0, len(gain), (10_000, len(gain)))].mean(axis=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.01)


def test_the_grouped_interval_equals_a_bootstrap_group_by_group() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(30), rng.integers(1, 9, 30))
    first, second = rng.random(len(groups)) < 0.8, rng.random(30)[groups] < 0.6
    found = compare_paired(first, second, groups=groups * 7 - 100)
    gain = first.astype(int) - second.astype(int)
    sums, sizes = np.bincount(groups, gain), np.bincount(groups)
    drawn = rng.integers(0, 30, (10_000, 30))
    expected = np.quantile(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), [0.025, 0.975])
    assert (found.difference.low, found.difference.high) == pytest.approx(tuple(expected), abs=0.015)
    assert found.num_groups == 30


def test_equal_arguments_give_equal_figures() -> None:
    first, second = rights(60, 25, 15, 20)
    assert compare_paired(first, second, seed=5) == compare_paired(first, second, seed=5)


def test_the_interval_covers_the_true_difference_in_about_95_of_100_tests() -> None:
    """Binomial sd of 400 simulations at 0.95: 0.011; the percentile interval is known to be slightly narrow."""
    rng = np.random.default_rng(7)
    shares = [0.5, 0.2, 0.1, 0.2]
    inside = 0
    for counts in rng.multinomial(120, shares, size=400):
        interval = compare_paired(*rights(*counts)).difference
        inside += interval.low <= 0.1 <= interval.high
    assert 0.92 <= inside / 400 <= 0.98


def test_groups_widen_the_interval_so_that_it_still_covers() -> None:
    """Ten images a prompt that are right or wrong together: without groups, the interval covers far too seldom."""
    rng = np.random.default_rng(8)
    groups = np.repeat(np.arange(40), 10)
    grouped = alone = 0
    for _ in range(150):
        first, second = (rng.random(40)[groups] < 0.7), (rng.random(40)[groups] < 0.7)
        with_groups = compare_paired(first, second, groups=groups).difference
        without = compare_paired(first, second).difference
        grouped += with_groups.low <= 0 <= with_groups.high
        alone += without.low <= 0 <= without.high
    assert grouped / 150 >= 0.89
    assert alone / 150 < 0.7


def test_a_real_difference_of_the_detectable_size_is_found_in_80_of_100_tests() -> None:
    discordant, n = 0.3, 300
    least = detectable_difference(discordant, n)
    assert least is not None
    first, second = (discordant + least) / 2, (discordant - least) / 2
    rng = np.random.default_rng(9)
    counts = rng.multinomial(n, [first, second, 1 - discordant], size=2_000)
    found = np.mean([mcnemar_p(int(b), int(c)) < 0.05 for b, c, _ in counts])
    # The exact test is conservative: the formula is of the asymptotic one.
    assert 0.74 <= found <= 0.84


def test_the_detectable_difference_falls_with_more_images_and_rises_with_disagreement() -> None:
    few, many, agreeing = (detectable_difference(*case) for case in ((0.3, 100), (0.3, 10_000), (0.05, 10_000)))
    assert few is not None
    assert many is not None
    assert agreeing is not None
    assert agreeing < many < few < 0.3
    assert many == pytest.approx((1.96 + 0.8416) * np.sqrt(0.3 / 10_000), rel=0.01)


@pytest.mark.parametrize(("n", "is_found"), [(1, False), (3, False), (10, True)])
def test_a_tiny_test_can_see_nothing(n: int, is_found: bool) -> None:
    assert (detectable_difference(0.0, n) is not None) == is_found


def test_classifiers_that_never_differ_are_not_certainly_equal() -> None:
    found = compare_paired(*rights(15, 0, 0, 5))
    assert found.difference.value == 0
    assert found.difference.low == pytest.approx(-found.difference.high)
    assert 0.1 < found.difference.high < 0.25
    assert (found.mcnemar_p, found.is_better, found.is_worse) == (1.0, False, False)


def test_one_image_decides_nothing() -> None:
    found = compare_paired(np.array([True]), np.array([False]))
    assert (found.difference.value, found.difference.high, found.is_better) == (1.0, 1.0, False)
    assert found.difference.low < 0.5
    assert found.detectable is None


def test_four_images_of_twenty_are_too_few_for_a_verdict() -> None:
    """The bootstrap's interval lies above 0 here; McNemar's p is 0.125."""
    found = compare_paired(*rights(10, 4, 0, 6))
    assert found.difference.low > 0
    assert not found.is_better


@pytest.mark.parametrize("groups", [None, np.zeros(3, np.int64)])
def test_unequal_sizes_are_refused(groups: np.ndarray | None) -> None:
    with pytest.raises(ValueError, match="same images"):
        compare_paired(np.ones(2, bool), np.ones(2 if groups is not None else 3, bool), groups=groups)
