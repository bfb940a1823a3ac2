"""The list of mistakes: order, bound, and both probabilities."""

import numpy as np
import pytest

from app.training.mistakes import find_mistakes
from app.training.predictions import read_predictions


def test_mistakes_are_listed_by_confidence() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    found = find_mistakes(read_predictions(probabilities, np.array([0, 0, 0, 1])))
    assert [(one.index, one.true, one.predicted) for one in found] == [(2, 0, 1), (1, 0, 1)]
    assert (found[0].probability, found[0].true_probability) == pytest.approx((0.8, 0.2))


def test_at_most_a_hundred_are_listed() -> None:
    rows = read_predictions(np.tile([0.3, 0.7], (500, 1)), np.zeros(500, np.int64))
    assert [one.index for one in find_mistakes(rows)] == list(range(100))
    assert find_mistakes(read_predictions(np.zeros((0, 2)), np.zeros(0, np.int64))) == ()
