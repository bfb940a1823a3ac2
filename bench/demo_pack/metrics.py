"""Accuracy and recall on plain arrays, and which pictures a panel of models fails on. Knows nothing of models.

Shape letters: `N` pictures, `K` classes, `V` models that vote.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from demo_pack.drawing.captions import Said

Scores = NDArray[np.float32]


def top_k(scores: Scores, wanted: Sequence[int], k: int = 1) -> NDArray[np.bool_]:
    """Tell for each row whether the wanted column is among the k highest.

    **Shapes**: scores (N, K); returns (N,).
    """
    highest = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    hits: NDArray[np.bool_] = (highest == np.asarray(wanted)[:, None]).any(axis=1)
    return hits


def share(hits: NDArray[np.bool_] | Sequence[bool]) -> float:
    """Return the share of hits, rounded for the report."""
    return round(float(np.mean(hits)), 4)


def share_by(names: Sequence[str], hits: NDArray[np.bool_]) -> dict[str, float]:
    """Return the share of hits for each name, in the order of first appearance. **Shapes**: hits (N,)."""
    column = np.array(names)
    return {name: share(hits[column == name]) for name in dict.fromkeys(names)}


def fits(stated: Said, shown: Said) -> bool:
    """Tell whether all that a caption states is what a drawing shows; where it is silent, anything fits."""
    pairs = (
        (stated.class_name, shown.class_name),
        (stated.colour, shown.colour),
        (stated.style, shown.style),
        (stated.background, shown.background),
    )
    return all(wanted in (None, given) for wanted, given in pairs)


def fit_matrix(stated: Sequence[Said], shown: Sequence[Said]) -> NDArray[np.bool_]:
    """Tell which drawing (column) fits which caption (row); each caption fits its own drawing.

    **Shapes**: returns (N, N), True on the diagonal.
    """
    matrix = np.array([[fits(caption, drawing) for drawing in shown] for caption in stated])
    np.fill_diagonal(matrix, True)
    return matrix


def recall_at_1(similarity: Scores, fitting: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Tell for each caption whether the most similar picture is its own, and whether it fits what the caption states.

    **Shapes**: similarity and fitting (captions, pictures); returns two of (captions,).
    """
    found, rows = similarity.argmax(axis=1), np.arange(len(similarity))
    return found == rows, fitting[rows, found]


def strict_ceiling(fitting: NDArray[np.bool_]) -> float:
    """Return the strict recall to expect of a reader who understands every word.

    Where several drawings fit the same words, even that reader can only guess between them.

    **Shapes**: fitting (captions, pictures), at least one True a row.
    """
    return round(float((1 / fitting.sum(axis=1)).mean()), 4)


def failures(right: NDArray[np.bool_], probabilities: Scores, limit: int) -> list[int]:
    """Choose the pictures that at least one model got wrong, worst first.

    Worse is: more models wrong; then less probability for the wanted class, averaged over the models.

    **Shapes**: right and probabilities (V, N), the latter of the wanted class.
    """
    wrong, belief = (~right).sum(axis=0), probabilities.mean(axis=0)
    order = np.lexsort((belief, -wrong))
    return [int(index) for index in order if wrong[index] > 0][:limit]
