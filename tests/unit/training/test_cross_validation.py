"""Each row is predicted by a head that did not see it."""

import numpy as np
import pytest

from app.training.cross_validation import cross_validated_probabilities
from app.training.settings import HeadSettings


def clusters(sizes: list[int], *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    noise = np.random.default_rng(seed).normal(size=(len(labels), 8))
    return (np.eye(len(sizes), 8)[labels] * 6 + noise).astype(np.float32), labels


@pytest.mark.parametrize("solver", ["lbfgs", "ridge", "prototypes"])
def test_a_wrong_label_is_given_a_low_probability(solver) -> None:
    features, labels = clusters([30, 30, 30])
    wrong = labels.copy()
    wrong[[3, 40]] = [1, 2]
    found = cross_validated_probabilities(features, wrong, 3, 0, settings=HeadSettings(solver=solver))
    own = found[np.arange(90), wrong]
    assert set(np.argsort(own)[:2]) == {3, 40}
    assert (found.argmax(axis=1) == labels).mean() > 0.95


def test_noise_is_not_predicted_better_than_by_chance() -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(60, 200)).astype(np.float32), np.arange(60) % 2
    found = cross_validated_probabilities(features, labels, 2, 0)
    assert (found.argmax(axis=1) == labels).mean() < 0.7  # a head that saw the rows is right on all of them


def test_probabilities_have_all_classes_and_sum_to_one() -> None:
    features, labels = clusters([10, 3, 2, 1])
    found = cross_validated_probabilities(features, labels, 6, 1)
    assert found.shape == (16, 6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert (found[:, 4:] == 0).all()


def test_the_row_of_a_class_of_one_is_never_suspected() -> None:
    features, labels = clusters([10, 10, 1])
    found = cross_validated_probabilities(features, labels, 3, 0)
    assert found[20].argmax() == 2


def test_equal_seeds_give_equal_bytes_and_others_do_not() -> None:
    features, labels = clusters([20, 20])
    first, again, other = (cross_validated_probabilities(features, labels, 2, seed) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_one_class_and_one_fold_are_refused() -> None:
    features, labels = clusters([5, 5])
    with pytest.raises(ValueError, match="two classes"):
        cross_validated_probabilities(features[:5], labels[:5], 2, 0)
    with pytest.raises(ValueError, match="two folds"):
        cross_validated_probabilities(features, labels, 2, 0, num_folds=1)
