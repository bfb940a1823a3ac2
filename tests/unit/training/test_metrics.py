"""The metrics of a split against scikit-learn's, and in degenerate cases."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_score,
    recall_score,
    top_k_accuracy_score,
)
from sklearn.preprocessing import normalize

from app.training.metrics import evaluate_confusion, evaluate_split, merge_classes


def softmax_outputs(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right more often than not, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) + 1.5 * np.eye(k)[labels]
    weights = np.exp(logits)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32), labels


def names(k: int) -> list[str]:
    return [f"class {index}" for index in range(k)]


@pytest.mark.parametrize(("n", "k"), [(2_500, 7), (40, 3), (300, 2)])
def test_every_figure_equals_scikit_learns(n: int, k: int) -> None:
    probabilities, labels = softmax_outputs(n, k)
    predicted, found = probabilities.argmax(axis=1), evaluate_split(probabilities, labels, names(k))
    all_labels = list(range(k))

    assert found.n == n
    assert found.accuracy.value == pytest.approx((predicted == labels).mean())
    assert np.array_equal(found.confusion, confusion_matrix(labels, predicted, labels=all_labels))
    assert found.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    one_hot, wide = np.eye(k)[labels], normalize(probabilities.astype(np.float64), "l1")
    assert found.brier == pytest.approx(brier_score_loss(one_hot, wide, scale_by_half=False), rel=1e-5)
    assert found.nll == pytest.approx(log_loss(labels, wide, labels=all_labels), rel=1e-5)
    precision, recall = (
        score(labels, predicted, average=None, labels=all_labels) for score in (precision_score, recall_score)
    )
    assert [one.precision for one in found.per_class] == pytest.approx(list(precision))
    assert [one.recall.value for one in found.per_class if one.recall] == pytest.approx(list(recall))
    if k > 5:
        assert found.top_5 is not None
        assert found.top_5.value == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5, labels=all_labels))
    else:
        assert found.top_5 is None


def test_the_calibration_error_equals_a_loop_over_the_bins() -> None:
    probabilities, labels = softmax_outputs(900, 4, seed=3)
    found = evaluate_split(probabilities, labels, names(4)).calibration
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for index in range(15):
        inside = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert found is not None
    assert found.ece == pytest.approx(expected, abs=1e-6)
    assert (found.n, len(found.bins), sum(one.count for one in found.bins)) == (900, 15, 900)
    assert found.bins[0].confidence is None
    assert found.bins[0].accuracy is None


def test_a_class_without_images_has_no_recall_and_does_not_count_in_the_mean() -> None:
    probabilities = np.eye(3)[[0, 0, 1, 2]]
    found = evaluate_split(probabilities, np.array([0, 0, 1, 1]), names(3))
    absent = found.per_class[2]
    assert (absent.precision, absent.recall, absent.f1, absent.support) == (0.0, None, None, 0)
    expected = f1_score([0, 0, 1, 1], [0, 0, 1, 2], average="macro", labels=[0, 1])
    assert found.macro_f1 == pytest.approx(expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # scikit-learn warns of the class without images
        assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score([0, 0, 1, 1], [0, 0, 1, 2]))


def test_precision_is_null_where_nothing_is_predicted() -> None:
    found = evaluate_split(np.eye(2)[[0, 0]], np.array([0, 1]), ["fox", "dog"])
    assert [one.precision for one in found.per_class] == [0.5, None]
    assert [one.name for one in found.per_class] == ["fox", "dog"]
    assert found.per_class[1].f1 == 0.0


def test_classes_below_thirty_images_are_flagged() -> None:
    labels = np.repeat([0, 1], [30, 29])
    found = evaluate_split(np.eye(2)[labels], labels, names(2))
    assert [one.is_small for one in found.per_class] == [False, True]


@pytest.mark.parametrize("flip", [False, True])
def test_all_right_and_all_wrong_stay_inside_the_bounds(flip: bool) -> None:
    labels = np.array([0, 1] * 10)
    found = evaluate_split(np.eye(2)[1 - labels if flip else labels], labels, names(2))
    share = 0.0 if flip else 1.0
    assert (found.accuracy.value, found.macro_f1, found.balanced_accuracy) == (share, share, share)
    assert found.accuracy.high - found.accuracy.low > 0.1
    assert found.brier == (2.0 if flip else 0.0)
    assert found.nll == pytest.approx(-np.log(np.finfo(np.float32).eps) if flip else 0.0)
    assert found.calibration is not None
    assert found.calibration.ece == 1 - share


def test_one_image_and_one_class() -> None:
    found = evaluate_split(np.ones((1, 1)), np.array([0]), ["fox"])
    assert (found.n, found.accuracy.value, found.macro_f1, found.nll) == (1, 1.0, 1.0, 0.0)
    assert found.accuracy.low == pytest.approx(0.2065, abs=1e-4)


def test_equal_probabilities_count_as_the_first_class() -> None:
    found = evaluate_split(np.full((3, 6), 1 / 6), np.array([0, 4, 5]), names(6))
    assert found.accuracy.value == pytest.approx(1 / 3)
    assert found.top_5 is not None
    assert found.top_5.value == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, np.int64), "no image"),
        (np.array([[np.nan, 1.0]]), np.array([0]), "finite"),
        (np.array([[np.inf, 0.0]]), np.array([0]), "finite"),
        (np.array([[-0.5, 1.5]]), np.array([0]), "not negative"),
        (np.array([[0.5, 0.6]]), np.array([0]), "sum to 1"),
        (np.array([[0.5, 0.5]]), np.array([2]), "out of range"),
        (np.array([[0.5, 0.5]]), np.array([-1]), "out of range"),
        (np.array([[0.5, 0.5]]), np.array([0, 1]), "must be"),
        (np.array([[0.5, 0.5]]), np.array([0.0]), "integers"),
        (np.array([[0.2, 0.3, 0.5]]), np.array([0]), "one name"),
    ],
)
def test_what_is_no_distribution_is_refused(probabilities: np.ndarray, labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate_split(probabilities, labels, names(2))


def test_a_confusion_matrix_alone_gives_the_same_counts() -> None:
    probabilities, labels = softmax_outputs(200, 6)
    full = evaluate_split(probabilities, labels, names(6))
    part = evaluate_confusion(full.confusion, names(6))
    assert (part.accuracy, part.macro_f1, part.per_class) == (full.accuracy, full.macro_f1, full.per_class)
    assert (part.brier, part.nll, part.calibration, part.top_5) == (None, None, None, None)
    with pytest.raises(ValueError, match="at least one image"):
        evaluate_confusion(np.zeros((2, 2), np.int64), names(2))


def test_merging_classes_keeps_every_image_and_the_worst_classes() -> None:
    probabilities, labels = softmax_outputs(3_000, 50)
    confusion = evaluate_split(probabilities, labels, names(50)).confusion
    kept, merged = merge_classes(confusion, 11)
    assert merged.shape == (11, 11)
    assert merged.sum() == 3_000
    assert np.array_equal(merged[:10, :10], confusion[np.ix_(kept, kept)])
    errors = confusion.sum(0) + confusion.sum(1) - 2 * confusion.diagonal()
    assert errors[kept].min() >= np.delete(errors, kept).max()
    assert merge_classes(confusion, 50)[1] is confusion
