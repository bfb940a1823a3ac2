"""The validation rows of a training split: stratified, seeded, and independent of the order of the rows.

Works on ids and labels; imports no torch. Runs on the thread of its caller.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.training.probe import Labels


def validation_rows(ids: Sequence[str], labels: Labels, *, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Choose which training rows are validated on instead.

    A class of n images gives `round(fraction n)`, at least 1 and at most n - 1, of them; a class of one image gives
    none, because it must be trained. An id's rank within its class is the SHA-256 of seed and id, so that a row keeps
    its side when the rows are in another order, and most rows keep it when images are added. Rows with equal ids, as
    the views of one image, are on the same side and count once.

    Args:
        ids: What identifies each row's image: the SHA-256 of its file, or its id.
        labels: The rows' classes.
        fraction: Share of each class, in (0, 1).
        seed: Another seed, another choice.

    Shapes:
        labels: (N,), int64.
        returns: (N,), bool.

    Raises:
        ValueError: The lengths differ, or the fraction is not in (0, 1).
    """
    if len(ids) != len(labels) or not 0 < fraction < 1:
        raise ValueError("There must be one id per label, and the fraction must be in (0, 1).")
    by_class: dict[int, set[str]] = {}
    for name, label in zip(ids, labels.tolist(), strict=True):
        by_class.setdefault(label, set()).add(name)
    chosen = {(label, name) for label, names in by_class.items() for name in _chosen(names, fraction, seed)}
    return np.array([pair in chosen for pair in zip(labels.tolist(), ids, strict=True)], np.bool_)


def _chosen(names: set[str], fraction: float, seed: int) -> list[str]:
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())[:count]
