"""The head of a train job: fitted, evaluated, and written as a file's bytes. Sees arrays and settings only.

The only module of the worker process that imports torch, so `job.py` imports it when the first job trains: a worker
that trains nothing starts sooner and stays smaller. Runs in the worker process, on the thread of the job.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from app.error_codes import ErrorCode
from app.errors import Invalid
from app.training.evaluation import evaluate
from app.training.linear_probe import Diverged, EpochMetrics, OptimizerSettings, fit, save_probe


@dataclass(frozen=True, slots=True)
class Examples:
    """The images that a head is trained and tested on, as the frozen backbone sees them.

    Attributes:
        features: (N, D), float32.
        labels: (N,), integers in 0 .. K - 1.
        is_train: (N,), bool; the other rows are test images.
    """

    features: np.ndarray
    labels: np.ndarray
    is_train: np.ndarray


def fit_head(
    examples: Examples,
    *,
    classes: Sequence[str],
    backbone_sha256: str,
    epochs: int,
    batch_size: int,
    optimizer: Mapping[str, Any],
    seed: int,
    on_epoch: Callable[[EpochMetrics], None],
) -> tuple[bytes, dict[str, dict[str, Any]]]:
    """Train a linear probe.

    Args:
        examples: What it is trained and tested on.
        classes: The names of the K classes, by label.
        backbone_sha256: The backbone that computed the features, for the file.
        epochs: Passes over the training rows, >= 1.
        batch_size: Rows of a gradient step, >= 1.
        optimizer: The fields of `OptimizerSettings`.
        seed: Of the first weights and the order of the rows.
        on_epoch: Called after each epoch.

    Returns:
        The bytes of the model file, and the evaluation of each split that has images, by its name.

    Raises:
        Invalid: `diverged`: the loss is no longer finite.
    """
    features, labels, train = examples.features, examples.labels, examples.is_train
    try:
        result = fit(
            features[train],
            labels[train],
            features[~train],
            labels[~train],
            num_classes=len(classes),
            epochs=epochs,
            batch_size=batch_size,
            optimizer=OptimizerSettings(**optimizer),
            seed=seed,
            on_epoch=on_epoch,
        )
    except Diverged as error:
        detail = "The loss is not finite any more. Use a smaller learning rate."
        raise Invalid(detail, code=ErrorCode.DIVERGED) from error
    metrics = {
        split: asdict(evaluate(result.probe, features[rows], labels[rows], num_classes=len(classes)))
        for split, rows in {"train": train, "test": ~train}.items()
        if rows.any()
    }
    return save_probe(result.probe, classes=list(classes), backbone=backbone_sha256), metrics
