"""The 95 % interval of a share: how far a figure from few images can be from the true one.

Works on counts; imports no models and no storage. Pure functions that run on the thread of their caller.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
# The two-sided 95 % quantile of the normal distribution, 1.95996...
Z_95 = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure measured on `n` images, with its 95 % interval.

    Attributes:
        value: The figure: a share, 0 ... 1, or a difference of two shares, -1 ... 1.
        low: The interval's lower end, at most `value`.
        high: The interval's upper end, at least `value`.
        n: The number of images that the figure was measured on, >= 1.
    """

    value: float
    low: float
    high: float
    n: int


def wilson(num_right: int, n: int) -> Interval:
    """Return a share with its Wilson score interval.

    The interval stays inside 0 ... 1 and does not have width 0 where all or none are right, unlike `p ± 1.96 s`.
    It assumes independent images: of images generated from few prompts it is too narrow.

    Args:
        num_right: 0 ... `n`.
        n: The number of images, >= 1.

    Raises:
        ValueError: A count is out of range.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927, without
        continuity correction; chosen for small n by Brown, Cai and DasGupta, Statistical Science 2001.
    """
    if n < 1 or not 0 <= num_right <= n:
        raise ValueError("A share needs at least one image and a count between 0 and their number.")
    lows, highs = wilson_bounds(np.array([num_right], np.float64), np.array([n], np.float64))
    return Interval(num_right / n, float(lows[0]), float(highs[0]), n)


def wilson_bounds(num_right: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Return the ends of many Wilson intervals; `n` >= 1 everywhere. See `wilson`.

    Shapes:
        num_right, n, each result: (M,), float64.
    """
    share, squared = num_right / n, Z_95**2 / n
    centre = (share + squared / 2) / (1 + squared)
    half = np.sqrt(squared * (share * (1 - share) + squared / 4)) / (1 + squared)
    # Rounding may move an end past the share itself where all or none are right.
    return np.clip(np.minimum(centre - half, share), 0, 1), np.clip(np.maximum(centre + half, share), 0, 1)
