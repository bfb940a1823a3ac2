"""Rows of features with their labels, and the scaling that a solver applies before it fits.

Works on arrays; imports no solver. Runs in the worker, on the thread of its caller.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from app.training.probe import Features, Labels, LinearProbe, normalised

ScalingName = Literal["none", "norm", "standard"]


@dataclass(frozen=True, slots=True)
class Rows:
    """The features of images, and their classes.

    Attributes:
        features: (N, D), float32.
        labels: (N,), int64, in 0 .. K - 1.
    """

    features: Features
    labels: Labels

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.labels)

    def checked(self, num_classes: int) -> "Rows":
        """Return the rows as float32 and int64.

        Raises:
            ValueError: The shapes do not fit, there is no row, a value is not finite, or a label is out of range.
        """
        features, labels = self.features, self.labels
        if features.ndim != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
            raise ValueError("The shape of the features must be (N, D) and that of the labels (N,), N >= 1.")
        if not np.isfinite(features).all():
            raise ValueError("A value of the features is not finite.")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError("A label is not in 0 ... K - 1.")
        return Rows(np.asarray(features, np.float32), np.asarray(labels, np.int64))

    def checked_for_training(self, num_classes: int) -> "Rows":
        """Return the rows as float32 and int64.

        Raises:
            ValueError: As `checked`; there are fewer than two classes, or a class has no row.
        """
        if num_classes < 2:
            raise ValueError("Training needs at least two classes.")
        rows = self.checked(num_classes)
        if rows.class_sizes(num_classes).min() == 0:
            raise ValueError("A class has no training row.")
        return rows

    def class_sizes(self, num_classes: int) -> npt.NDArray[np.int64]:
        """Return the number of rows of each class, (K,)."""
        return np.bincount(self.labels, minlength=num_classes).astype(np.int64)

    def normalised(self) -> "Rows":
        """Return the rows with features of L2 norm 1."""
        return Rows(normalised(self.features), self.labels)

    def scaled(self, scaling: "Scaling") -> "Rows":
        """Return the rows with scaled features; the same rows if that changes nothing."""
        if not scaling.mean.any() and (scaling.scale == 1).all():
            return self
        return Rows(((self.features - scaling.mean) / scaling.scale).astype(np.float32), self.labels)

    def joined(self, other: "Rows") -> "Rows":
        """Return these rows followed by the other ones."""
        return Rows(np.concatenate([self.features, other.features]), np.concatenate([self.labels, other.labels]))


@dataclass(frozen=True, slots=True)
class Scaling:
    """A shift and a scale of each feature, which a head takes over into its weights.

    Attributes:
        mean: (D,), float64.
        scale: (D,), float64, > 0.
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @classmethod
    def of(cls, features: Features, name: ScalingName) -> "Scaling":
        """Measure a scaling on training features.

        Args:
            features: Of the training rows alone.
            name: `none`; `norm`: all features divided by one number, the root of the rows' mean squared L2 norm, so
                that strengths of regularisation mean the same for every backbone; `standard`: each feature with mean 0
                and standard deviation 1, a constant feature unscaled.

        Shapes:
            features: (N, D), float32.
        """
        zeros, ones = np.zeros(features.shape[1]), np.ones(features.shape[1])
        if name == "none":
            return cls(zeros, ones)
        rows = features.astype(np.float64)
        if name == "standard":
            deviation = rows.std(axis=0)
            return cls(rows.mean(axis=0), np.where(deviation > 0, deviation, 1.0))
        norm = float(np.sqrt((rows**2).sum(axis=1).mean()))
        return cls(zeros, ones * (norm or 1.0))

    def fold(self, probe: LinearProbe) -> LinearProbe:
        """Return the head on unscaled features that equals this one on scaled features."""
        unscaled = probe.weight / self.scale
        shifted = probe.bias - unscaled @ self.mean
        return LinearProbe(unscaled.astype(np.float32), shifted.astype(np.float32), probe.normalise)

    def unfold(self, probe: LinearProbe) -> LinearProbe:
        """Return the head on scaled features that equals this one on unscaled features."""
        shifted = probe.bias + probe.weight @ self.mean
        weight = (probe.weight * self.scale).astype(np.float32)
        return LinearProbe(weight, shifted.astype(np.float32), probe.normalise)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Limit torch to one thread: a step of the head is too small for more.

    (16, 512) x (512, 10) takes 0.4 ms on one thread and 6.7 ms on two, on two busy cores.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch, BLAS and OpenMP to one thread, so that sums are equal for any number of threads."""
    with threadpool_limits(limits=1), one_torch_thread():
        yield
