"""The head of a train job: fitted on features, and written as a file's bytes. Sees arrays and settings only.

The only module of the worker process that imports torch, so `job.py` imports it when the first job trains: a worker
that trains nothing starts sooner and stays smaller. Runs in the worker process, on the thread of the job.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from app.error_codes import ErrorCode
from app.errors import Invalid
from app.services.training.payloads import Examples, TrainSpec
from app.training.cross_validation import cross_validated_probabilities
from app.training.heads import HeadResult, fit_head
from app.training.outcome import Diverged, HeadEpoch
from app.training.probe import predict, save_probe
from app.training.rows import Rows
from app.training.settings import HeadSettings
from app.training.splits import validation_rows

# Labels are examined up to this many images times classes: five fits of logistic regression on 5,000 images of 100
# classes take four seconds.
MAX_EXAMINED = 500_000


@dataclass(frozen=True, slots=True)
class FittedHead:
    """A trained head with what it says about every image.

    Attributes:
        data: The bytes of the model file.
        result: The head, its epochs, and how they came about.
        probabilities: (N, K), float32, of all images of the dataset.
        is_validation: (N,), bool: not trained on, to choose settings by: the dataset's own validation images, or a part
            of its training images.
        out_of_sample: (T, K), float32: of the T images of the split `train`, by heads that were not trained on
            them; None where there are too many.
    """

    data: bytes
    result: HeadResult
    probabilities: np.ndarray
    is_validation: np.ndarray
    out_of_sample: np.ndarray | None


def fit_examples(
    examples: Examples,
    spec: TrainSpec,
    *,
    classes: Sequence[str],
    backbone_sha256: str,
    on_epoch: Callable[[HeadEpoch], None],
    check: Callable[[], None],
) -> FittedHead:
    """Train a head.

    Args:
        examples: What it is trained and tested on.
        spec: The head's settings, the validation split, and the seed.
        classes: The names of the K classes, by label.
        backbone_sha256: The backbone that computed the features, for the file.
        on_epoch: Called after each epoch.
        check: Called between the epochs of a sweep; what it raises ends the training.

    Raises:
        Invalid: `diverged`: the loss is not finite, or higher than that of a head that knows nothing;
            `validation_empty`: the settings need validation images, and there are none.
    """
    is_validation, settings = held_out(examples, spec), _settings(spec)
    if settings.needs_validation and not is_validation.any():
        detail = "The settings are chosen on validation images, and the dataset's split `validation` has none."
        raise Invalid(detail, code=ErrorCode.VALIDATION_EMPTY)
    trained = examples.is_train & ~is_validation
    try:
        result = fit_head(
            _training_rows(examples, trained),
            _rows(examples, is_validation),
            settings,
            num_classes=len(classes),
            seed=spec.seed,
            test=_rows(examples, examples.is_test),
            on_epoch=on_epoch,
            between_epochs=check,
        )
    except Diverged as error:
        detail = "The loss rose beyond that of an untrained head, or is not finite. Use a smaller learning rate."
        raise Invalid(detail, code=ErrorCode.DIVERGED) from error
    return FittedHead(
        data=save_probe(result.probe, classes=list(classes), backbone=backbone_sha256),
        result=result,
        probabilities=predict(result.probe, examples.features),
        is_validation=is_validation,
        out_of_sample=out_of_sample(examples, len(classes), spec.seed),
    )


def _settings(spec: TrainSpec) -> HeadSettings:
    if spec.head is not None:
        return HeadSettings(**spec.head)
    # Of a release before 0.3.
    lr, momentum = spec.optimizer["lr"], spec.optimizer["momentum"]
    return HeadSettings(epochs=spec.epochs, batch_size=spec.batch_size, lr=lr, momentum=momentum)


def held_out(examples: Examples, spec: TrainSpec) -> np.ndarray:
    """Return which images are validation images, (N,), bool.

    The dataset's own, where it has any; else the spec's fraction of the training images; never some of both.
    """
    chosen = examples.is_validation
    if spec.validation is not None and not chosen.any():
        train = np.flatnonzero(examples.is_train)
        rows = validation_rows(
            [examples.ids[row] for row in train],
            examples.labels[train],
            fraction=spec.validation["fraction"],
            seed=spec.seed,
        )
        chosen[train[rows]] = True
    return chosen


def _rows(examples: Examples, chosen: np.ndarray) -> Rows | None:
    return Rows(examples.features[chosen], examples.labels[chosen]) if chosen.any() else None


def _training_rows(examples: Examples, trained: np.ndarray) -> Rows:
    """Return the plain views of the training images, then each further view of all of them."""
    views = [examples.features[trained]]
    of_train = trained[examples.is_train]
    views += [examples.more_views[of_train, view] for view in range(examples.more_views.shape[1])]
    return Rows(np.concatenate(views), np.tile(examples.labels[trained], len(views)))


def out_of_sample(examples: Examples, num_classes: int, seed: int) -> np.ndarray | None:
    """Return the training images' probabilities by heads that did not see them; None where it takes too long."""
    train = examples.is_train
    labels = examples.labels[train]
    if len(labels) * num_classes > MAX_EXAMINED or len(np.unique(labels)) < 2:
        return None
    return cross_validated_probabilities(examples.features[train], labels, num_classes, seed)
