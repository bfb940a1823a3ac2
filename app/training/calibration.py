"""Calibration: whether a classifier that says 0.8 is right in 80 % of those images.

Works on arrays; imports no models and no storage. Runs on the thread of its caller.
"""

from dataclasses import dataclass

import numpy as np

from app.training.intervals import Floats
from app.training.predictions import Bools

# As in Guo et al.; a figure with other bins is another figure.
NUM_BINS = 15


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """The images whose confidence is in (`low`, `high`]; the first bin includes 0.

    Attributes:
        low: The lower edge.
        high: The upper edge.
        count: The number of images.
        confidence: Their mean confidence; None without images.
        accuracy: The share of them that are right; None without images.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """The expected calibration error with its bins.

    Attributes:
        ece: The mean over images of |accuracy - confidence| of their bin, 0 ... 1. Biased upward on few images: a
            perfectly calibrated classifier has an ECE above 0, of about 0.05 to 0.15 on 100 images.
        n: The number of images.
        bins: Of equal width, over 0 ... 1.
    """

    ece: float
    n: int
    bins: tuple[CalibrationBin, ...]


def calibration(confidence: Floats, is_right: Bools, num_bins: int = NUM_BINS) -> Calibration:
    """Compare confidence with accuracy, bin by bin.

    Args:
        confidence: The probability of the most probable class, 0 ... 1.
        is_right: Whether it is the true one.
        num_bins: >= 1.

    Shapes:
        confidence, is_right: (N,), N >= 1.

    Source: Guo et al., "On calibration of modern neural networks", ICML 2017, equations 1 to 3.
    """
    place = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    counts = np.bincount(place, minlength=num_bins)
    confidences = np.bincount(place, confidence, num_bins) / np.maximum(counts, 1)
    accuracies = np.bincount(place, is_right, num_bins) / np.maximum(counts, 1)
    bins = tuple(
        CalibrationBin(
            low=index / num_bins,
            high=(index + 1) / num_bins,
            count=int(count),
            confidence=float(confidences[index]) if count else None,
            accuracy=float(accuracies[index]) if count else None,
        )
        for index, count in enumerate(counts)
    )
    ece = float(np.abs(accuracies - confidences) @ counts / len(confidence))
    return Calibration(ece, len(confidence), bins)
