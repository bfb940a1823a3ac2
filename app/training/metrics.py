"""The metrics of a classifier on one set of images: figures with intervals, per class by name, and their tables.

Works on arrays; imports no models and no storage. Runs in the worker, on the thread of its caller.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.training.calibration import Calibration, calibration
from app.training.intervals import Interval, wilson, wilson_bounds
from app.training.predictions import Integers, Ints, Predictions, Probabilities, read_predictions

# Below this, a class's figures say little: the 95 % interval of a recall of 0.8 on 29 images is 0.62 to 0.91.
SMALL_CLASS = 30
TOP_K = 5
# As scikit-learn's `log_loss` for float32: a probability of 0 for the true class counts as this, not as infinity.
MIN_PROBABILITY = float(np.finfo(np.float32).eps)


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class against the rest.

    Attributes:
        name: The class's name.
        precision: Share of the images predicted as this class that are of it; None if none is predicted so.
        recall: Share of its images that are predicted as it, with a Wilson interval; None without images.
        f1: The harmonic mean of both; None without images.
        support: The number of its images.
        is_small: Whether it has fewer than `SMALL_CLASS` images.
    """

    name: str
    precision: float | None
    recall: Interval | None
    f1: float | None
    support: int
    is_small: bool


@dataclass(frozen=True, slots=True)
class SplitMetrics:
    """The metrics of a classifier on one set of images.

    Attributes:
        n: The number of images, >= 1.
        accuracy: Share of the images whose most probable class is the true one.
        top_5: Share of the images whose true class is among the five most probable; None below six classes.
        macro_f1: Unweighted mean of the F1 of the classes with images; None if no class has any.
        balanced_accuracy: Unweighted mean of the recalls of the classes with images.
        brier: Mean of the squared error summed over classes, 0 ... 2 (0 ... 1 if halved); None without probabilities.
        nll: Mean negative log-likelihood of the true class in nats; None without probabilities.
        calibration: ECE with its bins; None without probabilities.
        per_class: In the order of the labels.
        confusion: (K, K), `[true][predicted]` counts images.
    """

    n: int
    accuracy: Interval
    top_5: Interval | None
    macro_f1: float | None
    balanced_accuracy: float | None
    brier: float | None
    nll: float | None
    calibration: Calibration | None
    per_class: tuple[ClassMetrics, ...]
    confusion: Ints


def evaluate_split(probabilities: Probabilities, labels: Integers, class_names: Sequence[str]) -> SplitMetrics:
    """Compute the metrics of a classifier on one set of images.

    Args:
        probabilities: Of each image and class.
        labels: The true classes.
        class_names: The names of the K classes, by label.

    Shapes:
        probabilities: (N, K), rows sum to 1, N >= 1.
        labels: (N,), integers in 0 .. K - 1.

    Raises:
        ValueError: There is no image, the sizes differ, a label is out of range, or a row is not a distribution.
    """
    return evaluate_predictions(read_predictions(probabilities, labels), class_names)


def evaluate_predictions(rows: Predictions, class_names: Sequence[str]) -> SplitMetrics:
    """Compute the metrics from the rows of `read_predictions`; see `evaluate_split`."""
    if len(rows) == 0:
        raise ValueError("There is no image to evaluate on.")
    if len(class_names) != rows.num_classes:
        raise ValueError("There must be one name for each class.")
    confusion = np.zeros((rows.num_classes, rows.num_classes), np.int64)
    np.add.at(confusion, (rows.labels, rows.predicted), 1)
    top_5 = wilson(int((rows.rank < TOP_K).sum()), len(rows)) if rows.num_classes > TOP_K else None
    return _metrics(
        confusion,
        class_names,
        top_5=top_5,
        brier=float(rows.squared_error.mean()),
        nll=float(-np.log(np.clip(rows.true_probability, MIN_PROBABILITY, 1)).mean()),
        calibrated=calibration(rows.confidence, rows.is_right),
    )


def evaluate_confusion(confusion: Ints, class_names: Sequence[str]) -> SplitMetrics:
    """Compute what a confusion matrix alone gives: no top-5, Brier, NLL and calibration.

    For models that an older release trained and for predictions without probabilities.

    Args:
        confusion: `[true][predicted]` counts images, at least one.
        class_names: The names of the K classes, by label.

    Shapes:
        confusion: (K, K).

    Raises:
        ValueError: There is no image, or the sizes differ.
    """
    if confusion.shape != (len(class_names), len(class_names)) or confusion.sum() == 0:
        raise ValueError("A confusion matrix needs one row and one column for each class, and at least one image.")
    return _metrics(confusion, class_names, top_5=None, brier=None, nll=None, calibrated=None)


def _metrics(
    confusion: Ints,
    class_names: Sequence[str],
    *,
    top_5: Interval | None,
    brier: float | None,
    nll: float | None,
    calibrated: Calibration | None,
) -> SplitMetrics:
    n = int(confusion.sum())
    per_class = _per_class(confusion, class_names)
    return SplitMetrics(
        n=n,
        accuracy=wilson(int(confusion.trace()), n),
        top_5=top_5,
        macro_f1=_mean([one.f1 for one in per_class if one.f1 is not None]),
        balanced_accuracy=_mean([one.recall.value for one in per_class if one.recall is not None]),
        brier=brier,
        nll=nll,
        calibration=calibrated,
        per_class=per_class,
        confusion=confusion,
    )


def _per_class(confusion: Ints, class_names: Sequence[str]) -> tuple[ClassMetrics, ...]:
    right, predicted, support = confusion.diagonal(), confusion.sum(axis=0), confusion.sum(axis=1)
    # A class without images has no recall; 1 in its place avoids a division by 0.
    lows, highs = wilson_bounds(right.astype(np.float64), np.maximum(support, 1).astype(np.float64))
    return tuple(
        ClassMetrics(
            name=name,
            precision=float(right[k] / predicted[k]) if predicted[k] else None,
            recall=_recall(right[k], support[k], lows[k], highs[k]) if support[k] else None,
            f1=float(2 * right[k] / (predicted[k] + support[k])) if support[k] else None,
            support=int(support[k]),
            is_small=bool(support[k] < SMALL_CLASS),
        )
        for k, name in enumerate(class_names)
    )


def _recall(right: np.int64, support: np.int64, low: np.float64, high: np.float64) -> Interval:
    return Interval(float(right / support), float(low), float(high), int(support))


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def merge_classes(confusion: Ints, max_classes: int, *, is_last_merged: bool = False) -> tuple[Ints, Ints]:
    """Shrink a confusion matrix: keep the classes with the most errors, merge all others into a last row and column.

    Args:
        confusion: `[true][predicted]`, not changed.
        max_classes: The most rows of the result, the merged one included, >= 2.
        is_last_merged: Whether the last row and column are merged classes already; they stay in the merged ones.

    Shapes:
        confusion: (K, K).

    Returns:
        The labels of the classes kept, ascending, and the matrix: (K, K) if K <= `max_classes`, else (`max_classes`,
        `max_classes`). The last diagonal cell of a merged matrix counts also the errors among the merged classes.
    """
    num_classes = len(confusion)
    if num_classes <= max_classes:
        return np.arange(num_classes), confusion
    errors = confusion.sum(axis=0) + confusion.sum(axis=1) - 2 * confusion.diagonal()
    if is_last_merged:
        errors[-1] = -1
    kept = np.sort(np.argsort(-errors, kind="stable")[: max_classes - 1])
    place = np.full(num_classes, max_classes - 1)
    place[kept] = np.arange(max_classes - 1)
    merged = np.zeros((max_classes, max_classes), np.int64)
    np.add.at(merged, (place[:, None], place[None, :]), confusion)
    return kept, merged
