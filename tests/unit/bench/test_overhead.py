"""How the overhead of a dataset job is taken from turns of a machine whose speed wanders."""

import pytest

from bench.overhead.__main__ import overhead_of


def test_a_job_is_compared_with_the_engine_before_and_after_it() -> None:
    assert overhead_of([3.3], [2.0, 4.0]) == pytest.approx(0.1)


def test_the_median_job_counts_and_not_a_disturbed_one() -> None:
    assert overhead_of([1.1, 9.0, 1.05], [1.0, 1.0, 1.0, 1.0]) == pytest.approx(0.1)
