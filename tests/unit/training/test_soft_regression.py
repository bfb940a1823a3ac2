"""Logistic regression on soft targets, against scikit-learn's on hard ones."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.training.probe import predict
from app.training.soft_regression import fit_soft


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 90)
    return (rng.normal(size=(90, 5)) + 1.5 * np.eye(3, 5)[labels]).astype(np.float32), labels


def hard(labels: np.ndarray) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[labels]


def test_hard_targets_without_a_start_equal_scikit_learn() -> None:
    features, labels = rows()
    probe = fit_soft(features, hard(labels), 10.0)
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=2000).fit(features, labels)
    assert np.abs(predict(probe, features) - theirs.predict_proba(features)).max() < 1e-3


def test_a_strong_penalty_keeps_the_start_and_a_weak_one_leaves_it() -> None:
    features, labels = rows()
    start = (np.arange(15).reshape(3, 5) / 10).astype(np.float32)
    kept, left = (fit_soft(features, hard(labels), penalty, start) for penalty in (1e6, 1e-2))
    assert np.abs(kept.weight - start).max() < 1e-3
    assert np.abs(left.weight - start).max() > 0.5


def test_soft_targets_are_what_the_head_predicts() -> None:
    features = np.zeros((40, 2), np.float32)
    targets = np.tile(np.array([[0.7, 0.3]], np.float32), (40, 1))
    assert predict(fit_soft(features, targets, 1.0), features)[0] == pytest.approx([0.7, 0.3], abs=1e-3)


def test_wrong_shapes_and_penalties_are_refused() -> None:
    features, labels = rows()
    with pytest.raises(ValueError, match="shapes"):
        fit_soft(features[:-1], hard(labels), 1.0)
    with pytest.raises(ValueError, match="shapes"):
        fit_soft(features, hard(labels), 1.0, np.zeros((3, 4), np.float32))
    with pytest.raises(ValueError, match="positive"):
        fit_soft(features, hard(labels), 0.0)
