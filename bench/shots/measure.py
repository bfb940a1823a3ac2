"""Probes on the features of pictures, and how many of the test's drawings each has right.

The backbone is `photo`: it was trained on photographs alone. The pack's own was trained on drawings of these classes,
and has every test drawing right after five.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.training.comparison import PairedDifference, compare_paired
from app.training.from_prompts import Bools
from app.training.heads import fit_head
from app.training.intervals import Interval, wilson
from app.training.probe import Features, Labels, predict
from app.training.rows import Rows
from app.training.settings import HeadSettings

# Logistic regression on features of length 1: the best head for the shots alone on another seed.
HEAD = HeadSettings(solver="lbfgs", normalise=True, c=10.0)


@dataclass(frozen=True)
class Labelled:
    """Features and classes of N pictures. **Shapes**: (N, D), (N,)."""

    features: Features
    labels: Labels

    def repeated(self, times: int) -> Labelled:
        """Return each picture so many times, which multiplies its weight."""
        return Labelled(np.tile(self.features, (times, 1)), np.tile(self.labels, times))

    def __add__(self, other: Labelled) -> Labelled:
        """Return the pictures of both."""
        return Labelled(np.concatenate([self.features, other.features]), np.concatenate([self.labels, other.labels]))


@dataclass(frozen=True)
class Line:
    """A row of the table: what was trained on, its accuracy, and that minus the accuracy of the shots alone."""

    name: str
    num_train: int
    accuracy: Interval
    gain: PairedDifference | None


def is_right(train: Labelled, test: Labelled) -> Bools:
    """Train a probe, and return which test pictures it has right. **Shapes**: (N,)."""
    num_classes = int(test.labels.max()) + 1
    probe = fit_head(Rows(train.features, train.labels), None, HEAD, num_classes=num_classes, seed=0).probe
    right: Bools = predict(probe, test.features).argmax(axis=1) == test.labels
    return right


def compare(arms: dict[str, Labelled], test: Labelled) -> list[Line]:
    """Measure each arm, and against the first one on the same pictures."""
    lines: list[Line] = []
    base: Bools | None = None
    for name, train in arms.items():
        right = is_right(train, test)
        gain = None if base is None else compare_paired(right, base)
        lines.append(Line(name, len(train.labels), wilson(int(right.sum()), len(right)), gain))
        base = right if base is None else base
    return lines
