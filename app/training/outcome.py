"""What a training reports: the metrics of its epochs, its warnings, and whether it diverged.

Works on numbers; imports no solver. Runs in the worker, on the thread of its caller.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

# A finished head whose loss is above this many times ln K, and above the loss of the head that it started from, has
# diverged: 1,046 against ln 2 = 0.69 at learning rate 10 and momentum 0.9. Below, more steps may still help: a warning.
DIVERGED_ABOVE = 10.0
# A head that changed its loss by less than this share was not trained: 1e-9 at learning rate 1e-12, 5 % after one
# epoch of the practical's settings on eight photographs.
NOT_TRAINED_BELOW = 0.01
# A validation accuracy from fewer images has a 95 % interval wider than 35 points.
FEW_VALIDATION_ROWS = 30
FEW_ROWS_OF_A_CLASS = 5
IMBALANCED_FROM = 10


class Diverged(Exception):
    """The loss or the weights are no longer finite, or the loss rose to many times that of a head that knows nothing.

    A smaller learning rate may help.
    """


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """The metrics of one epoch; those of training are averaged while the weights change, as in the practical.

    Attributes:
        epoch: Counted from 1.
        elapsed_ms: Milliseconds of wall time of the epoch, its test included.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class HeadEpoch(EpochMetrics):
    """The metrics of one epoch, with those of the validation rows; a solver without epochs reports one, with `lr` 0."""

    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class HeadWarning:
    """Something that a user should know about a finished training; `detail` is a sentence that says what to do."""

    code: Literal[
        "not_trained",
        "high_training_loss",
        "not_converged",
        "few_validation_images",
        "few_training_images",
        "imbalanced",
    ]
    detail: str


def refuse_diverged(*, before: float, after: float, num_classes: int) -> None:
    """Refuse a head that training made worse than one which knows nothing.

    Args:
        before: Mean cross-entropy of the training rows under the first weights.
        after: The same under the last ones.
        num_classes: K.

    Raises:
        Diverged: `after` is above both `before` and 10 ln K, or not finite.
    """
    if not math.isfinite(after) or after > max(before, DIVERGED_ABOVE * math.log(num_classes)):
        raise Diverged


def training_warnings(*, before: float, after: float, num_classes: int) -> list[HeadWarning]:
    """Warn of a head that hardly changed, or that is worse than one which knows nothing.

    A head that started with a loss below ln K / 2 had little to learn.
    """
    if after > math.log(num_classes) and after > before:
        detail = "The training loss is above that of a head that knows nothing. Use a smaller learning rate."
        return [HeadWarning("high_training_loss", detail)]
    if before > math.log(num_classes) / 2 and abs(before - after) < NOT_TRAINED_BELOW * before:
        detail = "The training loss hardly changed: the head is as good as untrained. Use a larger learning rate."
        return [HeadWarning("not_trained", detail)]
    return []


def direct_warnings(*, loss: float, num_classes: int) -> list[HeadWarning]:
    """Warn of a head without epochs that is not better than guessing on its own training rows.

    Args:
        loss: Mean cross-entropy of the training rows.
        num_classes: K.
    """
    if loss < (1 - NOT_TRAINED_BELOW) * math.log(num_classes):
        return []
    detail = "The head is no better than guessing on its own training images. Use a larger c, or a smaller alpha."
    return [HeadWarning("not_trained", detail)]


def data_warnings(class_sizes: Sequence[int], *, weighted: bool) -> list[HeadWarning]:
    """Warn of classes that are too small or too unequal.

    Args:
        class_sizes: Training rows of each class, >= 1.
        weighted: Whether the loss weighs the classes.
    """
    warnings = []
    if min(class_sizes) < FEW_ROWS_OF_A_CLASS:
        detail = f"A class has fewer than {FEW_ROWS_OF_A_CLASS} training images. Add images to it."
        warnings.append(HeadWarning("few_training_images", detail))
    if max(class_sizes) >= IMBALANCED_FROM * min(class_sizes) and not weighted:
        detail = (
            f"The largest class has at least {IMBALANCED_FROM} times the training images of the smallest one. "
            "Add images, or use balanced class weights."
        )
        warnings.append(HeadWarning("imbalanced", detail))
    return warnings
