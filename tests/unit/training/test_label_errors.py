"""Suspected label errors: against the formula image by image, and on labels that were flipped on purpose."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from app.training.label_errors import find_label_errors


def by_hand(probabilities: np.ndarray, labels: np.ndarray) -> list[tuple[int, int]]:
    """Index and suggested class of each suspect, by score."""
    k = probabilities.shape[1]
    thresholds = [probabilities[labels == j, j].mean() if (labels == j).any() else np.inf for j in range(k)]
    found = []
    for i, (row, given) in enumerate(zip(probabilities, labels, strict=True)):
        reached = [j for j in range(k) if row[j] >= thresholds[j] - 1e-6]
        if reached and row[given] < thresholds[given] and row.argmax() != given:
            best = max(reached, key=lambda j: row[j])
            if best != given:
                found.append((i, best))
    return sorted(found, key=lambda one: probabilities[one[0], labels[one[0]]])


def test_the_suspects_are_those_of_the_formula() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 2_000)
    weights = np.exp(rng.normal(size=(2_000, 5)) + 2 * np.eye(5)[labels])
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    labels[:100] = (labels[:100] + 1) % 5
    found = find_label_errors(probabilities, labels, max_listed=10_000)
    assert [(error.index, error.suggested) for error in found.listed] == by_hand(probabilities, labels)
    assert found.num_suspected == len(found.listed) > 50
    assert found.n == 2_000


def test_flipped_labels_are_found_by_out_of_sample_probabilities() -> None:
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, 600)
    features = rng.normal(size=(600, 8)) * 0.6 + 3 * np.eye(3, 8)[true]
    labels = true.copy()
    flipped = rng.choice(600, 30, replace=False)
    labels[flipped] = (labels[flipped] + 1) % 3
    probabilities = cross_val_predict(LogisticRegression(), features, labels, cv=5, method="predict_proba")
    found = find_label_errors(probabilities, labels)
    suspects = {error.index: error.suggested for error in found.listed}
    hits = [index for index in flipped if suspects.get(int(index)) == true[index]]
    # A suspect needs more than the usual confidence of its true class, which about a fifth of them miss.
    assert len(hits) >= 22
    assert found.num_suspected <= 36
    assert [error.score for error in found.listed] == sorted(error.score for error in found.listed)


def test_the_list_is_bounded_and_the_count_is_not() -> None:
    labels = np.array([0] * 50 + [1] * 50)
    probabilities = np.where(np.eye(2)[labels] == 1, 0.9, 0.1)
    probabilities[:10] = [0.05, 0.95]
    found = find_label_errors(probabilities, labels, max_listed=3)
    assert (found.num_suspected, [error.index for error in found.listed]) == (10, [0, 1, 2])
    assert (found.listed[0].given, found.listed[0].suggested) == (0, 1)
    assert (found.listed[0].score, found.listed[0].suggested_probability) == pytest.approx((0.05, 0.95))


def test_right_predictions_one_image_or_a_class_without_images_give_no_suspects() -> None:
    labels = np.array([0, 1, 0, 1])
    assert find_label_errors(np.eye(3)[labels], labels).num_suspected == 0
    assert find_label_errors(np.array([[0.2, 0.8]]), np.array([0])).num_suspected == 0
    assert find_label_errors(np.zeros((0, 2)), np.zeros(0, np.int64)).n == 0
    with pytest.raises(ValueError, match="finite"):
        find_label_errors(np.array([[np.nan, 1.0]]), np.array([0]))
