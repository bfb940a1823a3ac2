"""The metrics of a dataset's report: confusion, near-duplicates, diversity, shares, ranks.

Imports only NumPy. Pure functions that take up to seconds: run on a pool thread, not on the event loop.
"""

from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# Rows of the cosine matrix in memory at a time: 5 MB at 10,000 images, and 10 MB more to select the largest.
_BLOCK_ROWS = 128
# Less than every cosine.
_NO_PAIR = -2.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two images, by their rows, and the cosine of their embeddings."""

    first: int
    second: int
    cosine: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """Pairs of images that are nearly equal.

    Attributes:
        num_pairs: How many there are.
        closest: The closest ones, closest first.
        is_member: (N,), whether an image is in any pair.
    """

    num_pairs: int
    closest: list[Pair]
    is_member: Bools


def softmax(logits: Floats) -> Floats:
    """Return the softmax of each row of (N, C), C >= 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return cast(Floats, exponentials / exponentials.sum(axis=1, keepdims=True))


def confusion(own: Ints, predicted: Ints, num_classes: int) -> list[tuple[int, int, int]]:
    """Count images by own and predicted class.

    Args:
        own: (N,), index of each image's class.
        predicted: (N,), index of the class with the highest probability.
        num_classes: Number of classes, >= 1.

    Returns:
        (own class, predicted class, images) of every cell that is not 0: most images first, then by the indices; at
        most N cells.
    """
    cells, counts = np.unique(own * num_classes + predicted, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [(int(cells[i]) // num_classes, int(cells[i]) % num_classes, int(counts[i])) for i in order]


def shares(values: Ints, most: int) -> list[tuple[int, int, float]]:
    """Return (value, count, share) of the most frequent values, at most `most`; of equal ones the smaller first."""
    found, counts = np.unique(values, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(found[i]), int(counts[i]), float(counts[i] / len(values))) for i in order]


def diversity(embeddings: Floats) -> float | None:
    """Return the mean of 1 - cosine over all pairs of images, 0 ... 2; None for fewer than two.

    The sum of all cosines is the squared length of the sum of the vectors, so the time is O(N D).

    Args:
        embeddings: (N, D), rows of length 1.
    """
    num = len(embeddings)
    if num < 2:
        return None
    vectors = embeddings.astype(np.float64)
    total = vectors.sum(axis=0)
    of_pairs = total @ total - (vectors * vectors).sum()
    return float(np.clip(1 - of_pairs / (num * (num - 1)), 0, 2))


def near_duplicates(embeddings: Floats, threshold: float, most: int, *, groups: Ints | None = None) -> Pairs:
    """Find the pairs of images whose embeddings' cosine reaches the threshold; time O(N^2 D), memory O(N D).

    Args:
        embeddings: (N, D), rows of length 1.
        threshold: Least cosine of a pair, -1 .. 1.
        most: Most pairs in `closest`, >= 1.
        groups: (N,), a group for each image: only pairs of different groups count; None: all pairs.
    """
    num = len(embeddings)
    num_pairs, closest, is_member = 0, list[Pair](), np.zeros(num, dtype=np.bool_)
    for start in range(0, num, _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        # Columns before the block were rows of an earlier one.
        cosines = embeddings[rows] @ embeddings[start:].T
        cosines[np.tril_indices(len(cosines), m=cosines.shape[1])] = _NO_PAIR
        if groups is not None:
            cosines[groups[rows, None] == groups[None, start:]] = _NO_PAIR
        is_close = cosines >= threshold
        num_pairs += int(np.count_nonzero(is_close))
        is_member[rows] |= is_close.any(axis=1)
        is_member[start:] |= is_close.any(axis=0)
        if is_close.any():
            closest = _closest([*closest, *_largest(cosines, threshold, most, start)], most)
    return Pairs(num_pairs, closest, is_member)


def ranked(scores: Floats) -> Ints:
    """Return the row indexes from the smallest score to the largest; equal scores keep their order."""
    return np.argsort(scores, kind="stable")


def _largest(cosines: Floats, threshold: float, most: int, start: int) -> list[Pair]:
    """Return at most `most` pairs of a block whose cosines are the largest and reach the threshold."""
    flat = cosines.ravel()
    indexes = np.argpartition(flat, -most)[-most:] if len(flat) > most else np.arange(len(flat))
    rows, columns = np.unravel_index(indexes[flat[indexes] >= threshold], cosines.shape)
    return [
        Pair(start + int(row), start + int(column), min(float(cosines[row, column]), 1.0))
        for row, column in zip(rows, columns, strict=True)
    ]


def _closest(pairs: list[Pair], most: int) -> list[Pair]:
    return sorted(pairs, key=lambda pair: (-pair.cosine, pair.first, pair.second))[:most]
