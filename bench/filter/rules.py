"""The rules that are compared: each says which pictures of a labelled set are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.demo_pack.loading import Pack
from bench.demo_pack.reading import clip_probabilities
from bench.filter.planted import CLASSES, Planted

Kept = NDArray[np.bool_]
DATADREAMER_THRESHOLD = 0.05


def ours(pack: Pack, planted: Planted) -> Kept:
    """Ask the recipe, as a dataset job does: softmax over the texts of all classes. **Shapes**: (N,)."""
    texts = planted.recipe.filter.texts
    scores = clip_probabilities(pack, planted.images, texts)  # (N, K)
    verdicts = [
        planted.recipe.filter.apply(label.class_index, row)
        for label, row in zip(planted.labels, scores.tolist(), strict=True)
    ]
    return np.array([verdict.decision == "kept" for verdict in verdicts])


def datadreamer(pack: Pack, planted: Planted, batch: int) -> Kept:
    """Softmax over the objects named in the batch's own prompts, one a picture; keep above 0.05. **Shapes**: (N,).

    With a batch of one, the softmax is over one entry. Pictures are taken in a random order, as its prompts come.

    Source:
        Luxonis DataDreamer 0.2.3, `ClipImageTester`; written anew from a description of what it computes.
    """
    order = np.random.default_rng(0).permutation(len(planted.images))
    kept = np.zeros(len(order), np.bool_)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        objects = [CLASSES[planted.labels[row].class_index] for row in rows]
        scores = clip_probabilities(pack, [planted.images[row] for row in rows], objects)  # (B, B)
        kept[rows] = scores.diagonal() > DATADREAMER_THRESHOLD
    return kept
