"""The images that a classifier has wrong, the most confident first.

Works on arrays; imports no models and no storage. Runs in the worker, on the thread of its caller.
"""

from dataclasses import dataclass

import numpy as np

from app.training.predictions import Predictions

MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image whose most probable class is not the true one.

    Attributes:
        index: Its row.
        true: The true class.
        predicted: The most probable class.
        probability: The probability of `predicted`.
        true_probability: The probability of `true`.
    """

    index: int
    true: int
    predicted: int
    probability: float
    true_probability: float


def find_mistakes(rows: Predictions, max_listed: int = MAX_LISTED) -> tuple[Mistake, ...]:
    """Return the wrong images by descending confidence, at most `max_listed`; equals in the order of the rows."""
    wrong = np.flatnonzero(~rows.is_right)
    order = wrong[np.argsort(-rows.confidence[wrong], kind="stable")][:max_listed]
    return tuple(
        Mistake(
            int(row),
            int(rows.labels[row]),
            int(rows.predicted[row]),
            float(rows.confidence[row]),
            float(rows.true_probability[row]),
        )
        for row in order
    )
