"""Evaluation of a linear probe: accuracy, metrics per class, and the confusion matrix.

Works on arrays; imports no models and no storage. Runs in the worker, on the thread of its caller.
"""

from dataclasses import dataclass

import numpy as np

from app.training.linear_probe import Features, Labels, LinearProbe, predict


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class against the rest; a metric is 0 where it is undefined, `support` counts the class's true rows."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The metrics of a probe on one set of images.

    Attributes:
        accuracy: Share of rows whose most probable class is the true one, 0 ... 1.
        macro_f1: Unweighted mean of the classes' F1, 0 ... 1.
        per_class: In the order of the labels.
        confusion_matrix: `[true][predicted]` counts rows.
    """

    accuracy: float
    macro_f1: float
    per_class: tuple[ClassMetrics, ...]
    confusion_matrix: list[list[int]]


def evaluate(probe: LinearProbe, features: Features, labels: Labels, num_classes: int) -> Evaluation:
    """Compare a probe's most probable classes with the true ones.

    Args:
        probe: A classifier head of `num_classes` classes.
        features: The backbone's outputs for the images, N >= 1.
        labels: Their true classes.
        num_classes: K.

    Shapes:
        features: (N, D), float32.
        labels: (N,), int64, in 0 .. K - 1.

    Raises:
        ValueError: The sizes of probe, features, labels and the number of classes differ, or there is no row.
    """
    if len(probe.bias) != num_classes or len(labels) != len(features) or len(labels) == 0:
        raise ValueError("The sizes of probe, features, labels and the number of classes do not fit together.")
    confusion = np.zeros((num_classes, num_classes), np.int64)
    np.add.at(confusion, (labels, predict(probe, features).argmax(axis=1)), 1)
    per_class = tuple(_class_metrics(confusion, index) for index in range(num_classes))
    return Evaluation(
        accuracy=float(confusion.trace() / len(labels)),
        macro_f1=sum(metrics.f1 for metrics in per_class) / num_classes,
        per_class=per_class,
        confusion_matrix=confusion.tolist(),
    )


def _class_metrics(confusion: np.ndarray[tuple[int, int], np.dtype[np.int64]], index: int) -> ClassMetrics:
    num_right = int(confusion[index, index])
    num_predicted, num_true = int(confusion[:, index].sum()), int(confusion[index].sum())
    return ClassMetrics(
        precision=num_right / num_predicted if num_predicted else 0.0,
        recall=num_right / num_true if num_true else 0.0,
        f1=2 * num_right / (num_predicted + num_true) if num_right else 0.0,
        support=num_true,
    )
