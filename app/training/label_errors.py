"""Images whose label is probably wrong, found by confident learning.

Works on arrays; imports no models and no storage. Runs in the worker, on the thread of its caller.
"""

from dataclasses import dataclass

import numpy as np

from app.training.predictions import Integers, Probabilities, distributions, read_predictions

MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class LabelError:
    """An image whose label is probably wrong.

    Attributes:
        index: Its row.
        given: The class of its label.
        suggested: The class that the classifier takes it for with at least that class's usual confidence.
        score: The probability of the label's class (self-confidence), 0 ... 1; lowest first.
        suggested_probability: The probability of `suggested`.
    """

    index: int
    given: int
    suggested: int
    score: float
    suggested_probability: float


@dataclass(frozen=True, slots=True)
class LabelErrors:
    """The images whose label is probably wrong.

    Attributes:
        num_suspected: The number of them.
        n: The number of images examined.
        listed: The first of them by score, lowest first.
    """

    num_suspected: int
    n: int
    listed: tuple[LabelError, ...]


def find_label_errors(probabilities: Probabilities, labels: Integers, *, max_listed: int = MAX_LISTED) -> LabelErrors:
    """Find images whose label is probably wrong.

    The threshold t_k of a class is the mean probability of k over the images labelled k. An image is suspected if its
    most probable class is not its label, its probability of the label is below the label's threshold, and among the
    classes whose threshold its probability reaches, the most probable one is not its label. (The first and last make
    the off-diagonal of the confident joint.)

    Args:
        probabilities: Out-of-sample: no image was in the training set of the classifier that judged it.
        labels: The labels as given.
        max_listed: Most images to list.

    Shapes:
        probabilities: (N, K), rows sum to 1.
        labels: (N,), in 0 .. K - 1.

    Raises:
        ValueError: The sizes differ, a label is out of range, or a row is not a distribution.

    Source: Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021,
        equations 1 and 2; the choice by most probable class and the score as in cleanlab 2.9
        (`find_label_issues(filter_by="confident_learning")`, `get_self_confidence_for_each_label`), which has no
        condition on the label's own threshold and therefore suspects some images more.
    """
    rows = read_predictions(probabilities, labels)
    thresholds = _thresholds(rows.labels, rows.true_probability, rows.num_classes)
    found: list[LabelError] = []
    for place, block in distributions(probabilities):
        reached = np.where(block >= thresholds - 1e-6, block, -1.0)
        suggested = reached.argmax(axis=1)
        given = rows.labels[place]
        suspected = (
            (reached.max(axis=1) >= 0)
            & (suggested != given)
            & (rows.predicted[place] != given)
            & (rows.true_probability[place] < thresholds[given])
        )
        found += [
            LabelError(
                place.start + row,
                int(given[row]),
                int(suggested[row]),
                float(block[row, given[row]]),
                float(block[row, suggested[row]]),
            )
            for row in map(int, np.flatnonzero(suspected))
        ]
    found.sort(key=lambda error: (error.score, -error.suggested_probability, error.index))
    return LabelErrors(len(found), len(rows), tuple(found[:max_listed]))


def _thresholds(labels: Integers, true_probability: np.ndarray, num_classes: int) -> np.ndarray:
    """Return each class's mean self-confidence, (K,); infinite for a class without images: nothing reaches it."""
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, true_probability, num_classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
