"""A linear probe: one linear layer on the features of a frozen backbone, trained as in the practical.

Works on arrays: the backbone ran before, once, in `eval()`, so that every epoch uses the same features. The other
solvers are in `heads.py`. Runs in the worker, on the CPU, on the thread of its caller.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from app.training.gradient import Splits, descend
from app.training.objective import Objective
from app.training.outcome import Diverged, EpochMetrics, HeadEpoch
from app.training.probe import Features, Labels, LinearProbe, load_probe, predict, save_probe
from app.training.rows import Rows
from app.training.settings import HeadSettings

__all__ = [
    "Diverged",
    "EpochMetrics",
    "Features",
    "FitResult",
    "Labels",
    "LinearProbe",
    "OptimizerSettings",
    "fit",
    "load_probe",
    "predict",
    "save_probe",
]


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """Stochastic gradient descent; the defaults are those of the practical.

    Attributes:
        name: `sgd`, the only optimizer.
        lr: Learning rate, > 0.
        momentum: In [0, 1).
    """

    name: Literal["sgd"] = "sgd"
    lr: float = 0.001
    momentum: float = 0.9


@dataclass(frozen=True, slots=True)
class FitResult:
    """A trained probe and the metrics of its epochs, in order."""

    probe: LinearProbe
    epochs: tuple[EpochMetrics, ...]


def fit(
    train_features: Features,
    train_labels: Labels,
    test_features: Features | None,
    test_labels: Labels | None,
    *,
    num_classes: int,
    epochs: int = 10,
    batch_size: int = 16,
    optimizer: OptimizerSettings = OptimizerSettings(),
    seed: int = 0,
    on_epoch: Callable[[EpochMetrics], None] = lambda _: None,
) -> FitResult:
    """Train a linear probe by mini-batches on cross-entropy.

    Equal arguments give equal bytes, for any number of torch's threads.

    Args:
        train_features: The backbone's outputs for the training images.
        train_labels: Their classes; each class occurs.
        test_features: The backbone's outputs for the test images; None or empty: no test metrics.
        test_labels: Their classes.
        num_classes: K, >= 2.
        epochs: Passes over the training rows, >= 1.
        batch_size: Rows of a gradient step, >= 1; the last batch may be smaller.
        optimizer: Learning rate and momentum.
        seed: Determines the initial weights and the order of the rows, 0 ... 2^63 - 1.
        on_epoch: Called after each epoch; an exception from it ends the training.

    Shapes:
        train_features, test_features: (N, D), float32.
        train_labels, test_labels: (N,), int64, in 0 .. K - 1.

    Raises:
        ValueError: The arrays have wrong shapes or values, a count is too small, or a class has no training row.
        Diverged: The loss or the weights are no longer finite, or the last head is worse than one that knows nothing.

    Source:
        PyTorch's transfer learning tutorial, `train_model` with a fixed extractor, except for the backbone's mode.
    """
    settings = HeadSettings(epochs=epochs, batch_size=batch_size, lr=optimizer.lr, momentum=optimizer.momentum)
    settings.check()
    train = Rows(train_features, train_labels).checked_for_training(num_classes)
    test = None
    if test_features is not None and test_labels is not None and len(test_features) > 0:
        test = Rows(test_features, test_labels).checked(num_classes)
    objective = Objective(train, settings, num_classes=num_classes, soft_labels=None)
    trained = descend(
        Splits(train, test=test),
        objective,
        settings,
        seed=seed,
        on_epoch=lambda metrics: on_epoch(_without_validation(metrics)),
    )
    return FitResult(trained.probe, tuple(_without_validation(metrics) for metrics in trained.epochs))


def _without_validation(metrics: HeadEpoch) -> EpochMetrics:
    return EpochMetrics(
        metrics.epoch,
        metrics.train_loss,
        metrics.train_accuracy,
        metrics.test_loss,
        metrics.test_accuracy,
        lr=metrics.lr,
        elapsed_ms=metrics.elapsed_ms,
    )
