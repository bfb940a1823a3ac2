"""The tasks, their targets, and what is measured on each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.training.comparison import PairedDifference, compare_paired
from app.training.from_prompts import CLIP, Bools, PromptRows, PromptSettings, fit_from_prompts, predict_classes
from app.training.intervals import Interval, wilson
from app.training.probe import Features, Labels, LinearProbe, predict
from app.training.prompt_parts import measure_parts

SETTINGS = PromptSettings()


@dataclass(frozen=True)
class Task:
    """Classes to tell apart, and the least accuracy on pictures of other hands (issue 17)."""

    name: str
    class_names: tuple[str, ...]
    target: float


def make_tasks(class_names: Sequence[str]) -> list[Task]:
    """List the tasks: five that differ, five animals that look alike, and all classes of the pack."""
    return [
        Task("five", ("fox", "dog", "bird", "flower", "car"), 0.82),
        Task("animals", ("fox", "dog", "cat", "rabbit", "bird"), 0.72),
        Task("all", tuple(class_names), 0.72),
    ]


@dataclass(frozen=True)
class Line:
    """A row of the table: a classifier, its accuracy, and that minus CLIP zero-shot's on the same pictures."""

    name: str
    accuracy: Interval
    against_zero_shot: PairedDifference | None = None
    by_set: Mapping[str, float] | None = None


def measure(
    rows: PromptRows,
    zero_shot: LinearProbe,
    test: Mapping[str, Features],
    mirrored: Mapping[str, Features],
    labels: Labels,
    sets: Sequence[str],
) -> list[Line]:
    """Measure the baseline, the whole recipe, each part switched off, and each backbone alone."""
    base: Bools = predict(zero_shot, test[CLIP]).argmax(axis=1) == labels
    lines = [Line("CLIP zero-shot", wilson(int(base.sum()), len(base)), None, _by_set(base, sets))]
    head = fit_from_prompts(rows, zero_shot, SETTINGS)
    whole: Bools = predict_classes(head, test) == labels
    lines.append(_line("from_prompts, all parts on", whole, base, _by_set(whole, sets)))
    parts = measure_parts(rows, zero_shot, SETTINGS, test, labels, base)[1:]
    lines += [Line(f"without {part.part}", part.accuracy, part.against_baseline) for part in parts]
    lines += [_line(name, right, base) for name, right in _others(rows, zero_shot, test, labels)]
    both = {name: _unit(test[name]) + _unit(mirrored[name]) for name in test}
    lines.append(_line("with the mirror image's features", predict_classes(head, both) == labels, base))
    return lines


def _others(
    rows: PromptRows, zero_shot: LinearProbe, test: Mapping[str, Features], labels: Labels
) -> Iterator[tuple[str, Bools]]:
    """Yield each backbone alone with the other parts on, alone on the images themselves, and half of the images."""
    for name in SETTINGS.backbones:
        alone = replace(SETTINGS, backbones=(name,))
        yield f"{name} alone", predict_classes(fit_from_prompts(rows, zero_shot, alone), test) == labels
    for name in SETTINGS.backbones:
        bare = PromptSettings(
            backbones=(name,), uses_views=False, filters=False, soft_share=0.0, starts_from_text=False, alpha=1.0
        )
        yield f"{name} alone, no part on", predict_classes(fit_from_prompts(rows, zero_shot, bare), test) == labels
    half = rows[np.arange(len(rows.labels)) < len(rows.labels) // 2]
    yield "with half of the images", predict_classes(fit_from_prompts(half, zero_shot, SETTINGS), test) == labels


def _line(name: str, right: Bools, base: Bools, by_set: Mapping[str, float] | None = None) -> Line:
    return Line(name, wilson(int(right.sum()), len(right)), compare_paired(right, base), by_set)


def _by_set(right: Bools, sets: Sequence[str]) -> dict[str, float]:
    names = np.array(sets)
    return {name: round(float(right[names == name].mean()), 3) for name in sorted(set(sets))}


def _unit(rows: Features) -> Features:
    unit: Features = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
