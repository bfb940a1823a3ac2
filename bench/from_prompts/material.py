"""The training rows: images of the recipe with the CLIP filter's refills, their views, and the features of all."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.services.datasets.recipes.recipe import Recipe
from app.services.images.hand_views import LOOKS, make_view
from app.training.from_prompts import CLIP, PromptRows, passes_filter
from app.training.probe import Features, Labels, LinearProbe
from bench.demo_pack.generation import progress
from bench.from_prompts.drawing import Artist, Plan
from bench.from_prompts.features import Reader

ATTEMPTS = 4
CHUNK = 64


@dataclass(frozen=True)
class Generated:
    """Generated images, the rejected ones too.

    Attributes:
        images: N images, RGB.
        labels: (N,).
        is_kept: (N,), by the CLIP filter.
        missing: Images that were still rejected after the last attempt.
    """

    images: list[Image.Image]
    labels: Labels
    is_kept: np.ndarray[tuple[int], np.dtype[np.bool_]]
    missing: int


def draw(recipe: Recipe, plan: Plan, artist: Artist, read_clip: Reader, zero_shot: LinearProbe) -> Generated:
    """Draw each slot, and those that the filter rejects again with other prompts and seeds."""
    num_classes = len(zero_shot.weight)
    # position by position: an interrupted run has drawn equally many of each class
    slots = [recipe.slot(k * plan.per_class + p) for p in range(plan.per_class) for k in range(num_classes)]
    images: list[Image.Image] = []
    labels: list[int] = []
    kept: list[bool] = []
    for attempt in range(ATTEMPTS):
        drawn = artist.images([recipe.draw(slot, attempt).spec for slot in slots])
        wanted = np.array([slot.class_index for slot in slots], np.int64)
        passed = passes_filter(zero_shot, read_clip(drawn), wanted).tolist()
        images, labels, kept = images + drawn, labels + wanted.tolist(), kept + passed
        slots = [slot for slot, is_kept in zip(slots, passed, strict=True) if not is_kept]
        if not slots:
            break
    return Generated(images, np.array(labels, np.int64), np.array(kept, np.bool_), len(slots))


def read_rows(generated: Generated, readers: Mapping[str, Reader], folder: Path, key: str) -> PromptRows:
    """Read the features of every image and of its views; kept on disk under a key of everything that matters."""
    num_looks = len(LOOKS)
    parts: list[dict[str, Features]] = []
    started_s = time.perf_counter()
    for start in range(0, len(generated.images), CHUNK):
        path = folder / f"{key}-{start}.npz"
        if not path.exists():
            _save(path, _read_chunk(generated.images[start : start + CHUNK], start, readers))
            progress(f"features of {start + CHUNK} of {len(generated.images)}", time.perf_counter() - started_s)
        with np.load(path) as kept:
            parts.append({name: kept[name] for name in readers})
    features = {name: np.concatenate([part[name] for part in parts]) for name in readers}
    each = 1 + num_looks
    is_view = np.tile(np.arange(each) > 0, len(generated.images))
    return PromptRows(features, np.repeat(generated.labels, each), is_view, np.repeat(generated.is_kept, each))


def _read_chunk(images: Sequence[Image.Image], first: int, readers: Mapping[str, Reader]) -> dict[str, Features]:
    """Read each image followed by its views; the views' seeds follow from the image's number."""
    pictures = []
    for number, image in enumerate(images, start=first):
        views = [make_view(image, look, 1000 * number + index) for index, look in enumerate(LOOKS)]
        pictures += [image, *views]
    return {name: read(pictures) for name, read in readers.items()}


def rows_of(rows: PromptRows, class_indexes: Sequence[int], zero_shot: LinearProbe) -> PromptRows:
    """Return the rows of some classes, numbered anew, with the filter of those classes."""
    chosen = rows[np.isin(rows.labels, class_indexes)]
    number = {index: place for place, index in enumerate(class_indexes)}
    labels = np.array([number[label] for label in chosen.labels.tolist()], np.int64)
    each = 1 + len(LOOKS)
    kept = np.repeat(passes_filter(zero_shot, chosen.features[CLIP][::each], labels[::each]), each)
    return PromptRows(chosen.features, labels, chosen.is_view, kept)


def _save(path: Path, features: Mapping[str, Features]) -> None:
    arrays: dict[str, Any] = dict(features)  # numpy's stub would take them for `allow_pickle`
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.rename(path)
