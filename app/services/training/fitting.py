"""The head of a train job: fitted, evaluated, and written as a file's bytes. Sees arrays and settings only.

The only module of the worker process that imports torch, so `job.py` imports it when the first job trains: a worker
that trains nothing starts sooner and stays smaller. Runs in the worker process, on the thread of the job.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from app.error_codes import ErrorCode
from app.errors import Invalid
from app.services.training.payloads import Examples, TrainSpec
from app.training.evaluation import evaluate
from app.training.linear_probe import Diverged, EpochMetrics, OptimizerSettings, fit, save_probe


def fit_head(
    examples: Examples,
    spec: TrainSpec,
    *,
    classes: Sequence[str],
    backbone_sha256: str,
    on_epoch: Callable[[EpochMetrics], None],
) -> tuple[bytes, dict[str, dict[str, Any]]]:
    """Train a linear probe.

    Args:
        examples: What it is trained and tested on.
        spec: Epochs, batch size, optimizer and seed.
        classes: The names of the K classes, by label.
        backbone_sha256: The backbone that computed the features, for the file.
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
            epochs=spec.epochs,
            batch_size=spec.batch_size,
            optimizer=OptimizerSettings(**spec.optimizer),
            seed=spec.seed,
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
