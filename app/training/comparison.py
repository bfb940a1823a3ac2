"""Comparison of two classifiers on the same images: the difference of their accuracies and what it is worth.

Works on arrays; imports no models and no storage. Pure and seeded: equal arguments give equal figures. Runs on the
thread of its caller; 10,000 resamples of 100,000 images take some milliseconds, of as many groups some seconds.
"""

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from app.training.intervals import Floats, Interval, wilson
from app.training.predictions import Bools, Ints

NUM_RESAMPLES = 10_000
ALPHA, POWER = 0.05, 0.8
# Numbers of a block of resamples: 32 MB of int64.
_BLOCK_NUMBERS = 4_000_000


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """The accuracy of a first classifier minus that of a second one, on the same images.

    Attributes:
        difference: With the 95 % percentile interval of a paired bootstrap.
        num_only_first: The number of images that only the first has right.
        num_only_second: The number of images that only the second has right.
        mcnemar_p: The exact two-sided p-value of McNemar's test; 1 if the classifiers never differ. It takes images
            as independent, so it is too small for images in groups.
        detectable: The least difference that a test of this size finds with a probability of 80 % at a two-sided
            level of 5 %, 0 ... 1; None if not even a difference of 1 would be found.
        num_groups: The number of groups that were resampled; the number of images if each is its own group.
    """

    difference: Interval
    num_only_first: int
    num_only_second: int
    mcnemar_p: float
    detectable: float | None
    num_groups: int

    @property
    def is_better(self) -> bool:
        """Whether the first is better: the interval lies above 0 and McNemar's p is below 5 %.

        Both are asked for because each fails somewhere: the bootstrap on very few images that differ, McNemar's test
        on images in groups.
        """
        return self.difference.low > 0 and self.mcnemar_p < ALPHA

    @property
    def is_worse(self) -> bool:
        """Whether the first is worse, by the same rule."""
        return self.difference.high < 0 and self.mcnemar_p < ALPHA


def compare_paired(first: Bools, second: Bools, *, groups: Ints | None = None, seed: int = 0) -> PairedDifference:
    """Compare two classifiers by which images each has right.

    Args:
        first: Whether the first classifier is right.
        second: Whether the second classifier is right.
        groups: The group of each image: images that share a prompt or a seed are no independent evidence, so whole
            groups are resampled. None: each image is its own group.
        seed: Of the resampling.

    Shapes:
        first, second: (N,), bool, N >= 1.
        groups: (N,), any integers.

    Raises:
        ValueError: There is no image, or the sizes differ.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13 (percentile interval); McNemar,
        Psychometrika 1947, in its exact form; for the groups, Field and Welsh, "Bootstrapping clustered data", JRSS B
        2007 (cluster bootstrap).
    """
    if len(first) == 0 or first.shape != second.shape or (groups is not None and groups.shape != first.shape):
        raise ValueError("Two classifiers are compared on the same images, at least one.")
    gain = first.astype(np.int64) - second.astype(np.int64)
    sums, sizes = _group_sums(gain, groups)
    resampled = _resample(sums, sizes, seed)
    only_first, only_second = int((gain > 0).sum()), int((gain < 0).sum())
    return PairedDifference(
        difference=_interval(gain, resampled, len(sums)),
        num_only_first=only_first,
        num_only_second=only_second,
        mcnemar_p=mcnemar_p(only_first, only_second),
        detectable=detectable_difference((only_first + only_second) / len(gain), _effective_n(gain, resampled, sums)),
        num_groups=len(sums),
    )


def mcnemar_p(num_only_first: int, num_only_second: int) -> float:
    """Return the exact two-sided p-value of McNemar's test: a binomial test of the images on which two differ."""
    from scipy.special import bdtr  # only where models are compared: a worker starts without it

    total = num_only_first + num_only_second
    return min(1.0, 2 * float(bdtr(min(num_only_first, num_only_second), total, 0.5))) if total else 1.0


def detectable_difference(discordant: float, n: float) -> float | None:
    """Return the least difference of two accuracies that McNemar's test finds in 80 % of all tests of this size.

    With psi, the share of images on which the classifiers differ in being right, and d, the difference, a test needs
    n = (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 / d^2 images, z_a = 1.96, z_b = 0.84. This solves it for d. As d cannot
    exceed psi, a difference above the observed psi is sought with psi = d.

    Args:
        discordant: The observed psi, 0 ... 1.
        n: The number of (independent) images.

    Returns:
        d, 0 < d <= 1; None if not even 1 would be found.

    Source: Connor, "Sample size for testing differences in proportions for the paired-sample design", Biometrics 1987,
        equation 4 (unconditional; after Miettinen, Biometrics 1968).
    """
    low, high = 0.0, 1.0
    if _needed_images(max(discordant, high), high) > n:
        return None
    # Halving 50 times finds d to 1e-15; fewer images are needed for a larger d.
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if _needed_images(max(discordant, middle), middle) <= n else (middle, high)
    return high


def _needed_images(psi: float, difference: float) -> float:
    z_a, z_b = NormalDist().inv_cdf(1 - ALPHA / 2), NormalDist().inv_cdf(POWER)
    spread = sqrt(max(psi - difference**2, 0.0))
    root = (z_a * sqrt(psi) + z_b * spread) / difference
    return root * root


def _group_sums(gain: Ints, groups: Ints | None) -> tuple[Ints, Ints]:
    """Return the sum of gains and the number of images of each group, (G,) each."""
    if groups is None:
        return gain, np.ones_like(gain)
    _, place = np.unique(groups, return_inverse=True)
    return np.bincount(place, gain).astype(np.int64), np.bincount(place)


def _resample(sums: Ints, sizes: Ints, seed: int) -> Floats:
    """Return the differences of `NUM_RESAMPLES` samples of whole groups with replacement.

    Groups of equal sum and size are interchangeable, so how often each kind is drawn follows a multinomial
    distribution: the same distribution as drawing group by group, at a cost that does not grow with their number.
    """
    kinds, counts = np.unique(np.stack([sums, sizes]), axis=1, return_counts=True)
    shares, num_groups = counts / counts.sum(), int(counts.sum())
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK_NUMBERS // len(shares))
    parts = []
    for start in range(0, NUM_RESAMPLES, block):
        drawn = rng.multinomial(num_groups, shares, size=min(block, NUM_RESAMPLES - start))
        parts.append((drawn @ kinds[0]) / (drawn @ kinds[1]))
    return np.concatenate(parts)


def _interval(gain: Ints, resampled: Floats, num_groups: int) -> Interval:
    value = float(gain.mean())
    low, high = (float(end) for end in np.quantile(resampled, [0.025, 0.975]))
    if low == high:
        # Every resample is equal, which does not make the difference certain: Wilson's bound of 0 of `num_groups`.
        doubt = wilson(0, num_groups).high
        low, high = max(value - doubt, -1.0), min(value + doubt, 1.0)
    return Interval(value, min(low, value), max(high, value), len(gain))


def _effective_n(gain: Ints, resampled: Floats, sums: Ints) -> float:
    """Return how many independent images give the same variance of the difference as these groups.

    The number of images divided by Kish's design effect, which the bootstrap measures; between 1 and N.
    """
    if len(sums) == len(gain):
        return len(gain)
    variance = float(resampled.var())
    independent = float(gain.var()) / len(gain)
    if variance == 0:
        return len(sums)
    return float(np.clip(len(gain) * independent / variance, 1, len(gain)))
