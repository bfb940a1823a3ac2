"""Baselines against scikit-learn, and without images of a class."""

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import normalize

from app.training.baselines import majority_class, nearest_centroid


def test_the_majority_class_is_the_first_of_the_most_frequent() -> None:
    assert majority_class(np.array([2, 1, 1, 2, 0]), 4) == 1
    with pytest.raises(ValueError, match="no training image"):
        majority_class(np.zeros(0, np.int64), 4)


def test_the_nearest_centroid_equals_scikit_learns_on_scaled_features() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 500)
    centres = rng.normal(size=(6, 16))
    train = (centres[labels] + rng.normal(size=(500, 16)) * 2).astype(np.float32)
    test = (centres[rng.integers(0, 6, 9_000)] + rng.normal(size=(9_000, 16))).astype(np.float32)
    expected = NearestCentroid().fit(normalize(train), labels).predict(normalize(test))
    assert np.array_equal(nearest_centroid(train, labels, test, 6), expected)


def test_a_class_without_training_images_is_never_returned() -> None:
    train = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = nearest_centroid(train, np.array([0, 2]), np.array([[0.0, 0.0], [-1.0, -1.0], [0.1, 0.9]]), 4)
    assert set(found) <= {0, 2}
    assert found[2] == 2


def test_no_images_to_predict_and_none_to_learn_from() -> None:
    train, labels = np.ones((2, 3)), np.array([0, 1])
    assert nearest_centroid(train, labels, np.zeros((0, 3)), 2).shape == (0,)
    with pytest.raises(ValueError, match="no training image"):
        nearest_centroid(np.zeros((0, 3)), np.zeros(0, np.int64), train, 2)
    with pytest.raises(ValueError, match="not finite"):
        nearest_centroid(np.full((2, 3), np.nan), labels, train, 2)
