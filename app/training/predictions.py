"""What a classifier said about each image, in one number each: the base of every figure in `metrics.py`.

Works on arrays; imports no models and no storage. Reads probabilities in blocks of rows, so that 100,000 images of
1,000 classes need no second copy. Runs on the thread of its caller.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from app.training.intervals import Floats

Probabilities = np.ndarray[tuple[int, int], np.dtype[np.floating]]
Integers = np.ndarray[tuple[int, ...], np.dtype[np.integer]]
Ints = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
Bools = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

# Rows at a time: 8 MB of float64 for 1,000 classes.
_BLOCK = 1024
# Half precision softmax outputs of 1,000 classes add up to 1 within this.
_SUM_TOLERANCE = 5e-3


@dataclass(frozen=True, slots=True)
class Predictions:
    """One row for each image; probabilities are scaled to sum 1.

    Attributes:
        labels: (N,), the true classes.
        predicted: (N,), the most probable class, the first of equals.
        confidence: (N,), the probability of `predicted`.
        true_probability: (N,), the probability of the true class.
        squared_error: (N,), the sum over classes of (p - y)^2, 0 ... 2.
        rank: (N,), the number of classes ranked before the true one: 0 if it is the most probable.
        num_classes: K.
    """

    labels: Ints
    predicted: Ints
    confidence: Floats
    true_probability: Floats
    squared_error: Floats
    rank: Ints
    num_classes: int

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)

    @property
    def is_right(self) -> Bools:
        """(N,), whether the most probable class is the true one."""
        return np.equal(self.predicted, self.labels)


def read_predictions(probabilities: Probabilities, labels: Integers) -> Predictions:
    """Reduce probabilities to one row of figures for each image.

    Args:
        probabilities: Of each image and class; each row sums to 1 within 0.005 (half precision).
        labels: The true classes.

    Shapes:
        probabilities: (N, K), any float type, N >= 0, K >= 1.
        labels: (N,), integers in 0 .. K - 1.

    Raises:
        ValueError: The sizes differ, a label is out of range, or a row is not a distribution (NaN included).
    """
    _check(probabilities, labels)
    num_rows, num_classes = probabilities.shape
    predicted, rank = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)
    confidence, true_probability, squared_error = (np.zeros(num_rows) for _ in range(3))
    true_labels: Ints = labels.astype(np.int64)
    for rows, block in distributions(probabilities):
        own, index = true_labels[rows], np.arange(len(block))
        true = block[index, own]
        predicted[rows] = block.argmax(axis=1)
        confidence[rows] = block.max(axis=1)
        true_probability[rows] = true
        squared_error[rows] = (block**2).sum(axis=1) - true**2 + (1 - true) ** 2
        is_equal_and_first = (block == true[:, None]) & (np.arange(num_classes) < own[:, None])
        rank[rows] = (block > true[:, None]).sum(axis=1) + is_equal_and_first.sum(axis=1)
    return Predictions(true_labels, predicted, confidence, true_probability, squared_error, rank, num_classes)


def distributions(probabilities: Probabilities) -> Iterator[tuple[slice, Floats]]:
    """Yield blocks of rows in float64, scaled to sum 1, with their place.

    Raises:
        ValueError: A row is not a distribution: not finite, negative, or its sum is not 1.
    """
    for start in range(0, len(probabilities), _BLOCK):
        block = probabilities[start : start + _BLOCK].astype(np.float64)
        sums = block.sum(axis=1, keepdims=True)
        # Written so that a NaN fails it.
        if not ((block >= 0).all() and (np.abs(sums - 1) <= _SUM_TOLERANCE).all()):
            raise ValueError("Each row of probabilities must be finite, not negative, and sum to 1.")
        yield slice(start, start + len(block)), block / sums


def _check(probabilities: Probabilities, labels: Integers) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or probabilities.shape[1] == 0:
        raise ValueError("Probabilities must be (N, K) and labels (N,), with at least one class.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError("Labels must be integers.")
    if len(labels) and not (labels.min() >= 0 and labels.max() < probabilities.shape[1]):
        raise ValueError("A label is out of range.")
