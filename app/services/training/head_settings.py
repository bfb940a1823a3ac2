"""The settings of a train job's head and fine-tuning: from the request to values that the job's spec keeps.

Imports no HTTP framework. Runs on a worker thread of the API process.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from app.error_codes import ErrorCode
from app.errors import Invalid
from app.finetuning.plan import BackboneSpec, FineTunePlan
from app.finetuning.settings import FineTuneSettings
from app.schemas.train_jobs import TrainJobCreate
from app.services.inference.backbone_descriptions import BackboneDescription
from app.services.inference.fine_tuning import network_of
from app.storage.layout import FINE_TUNING, DataFolder
from app.training.settings import HeadSettings, default_settings

DEFAULT_VALIDATION = {"fraction": 0.2}
# Members whose presence in a request means that the user has chosen a solver.
_CHOICES = {"head", "optimizer", "epochs", "batch_size", "early_stopping"}
# Those of them that are the fine-tuning's, where the request asks for one.
_OF_FINE_TUNING = {"epochs", "batch_size", "early_stopping"}
MAX_FINE_TUNE_EPOCHS = 100
MAX_FINE_TUNE_BATCH = 128


def resolve_head(request: TrainJobCreate, *, smallest_class: int | None, trained_on: str | None) -> HeadSettings:
    """Return how the head is trained, with every default filled in.

    Args:
        request: The request.
        smallest_class: Training images of the smallest class; None: they are still to be generated.
        trained_on: What the backbone was trained on, as `GET /backbones` says it.

    Raises:
        Invalid: The settings exclude each other.
    """
    if request.preset is not None:
        return HeadSettings(solver="lbfgs")  # one fit without epochs; the recipe has its own settings
    choices = _CHOICES if request.fine_tune is None else _CHOICES - _OF_FINE_TUNING
    few = smallest_class is not None and not choices & request.model_fields_set
    if few and trained_on != "drawings":
        return default_settings(smallest_class or 0)
    settings = _asked(request)
    try:
        settings.check()
    except ValueError as error:
        raise Invalid.field("#/head", str(error), ErrorCode.BAD_HEAD) from None
    return settings


def resolve_validation(
    request: TrainJobCreate, head: HeadSettings, *, largest_class: int | None, has_own: bool
) -> dict[str, Any] | None:
    """Return the part of the training images to choose by: the request's, or the default where the head needs some.

    Args:
        request: The request.
        head: How the head is trained.
        largest_class: Training images of the largest class; None: they are still to be generated.
        has_own: Whether the dataset has, or will have, a split `validation`: it is used, and no part is needed.

    Returns:
        None: no training image is held out.

    Raises:
        Invalid: The head needs validation images, and no class has two training images.
    """
    if has_own:
        return None
    if request.validation is not None:
        return request.validation.model_dump(mode="json")
    if not head.needs_validation and (request.fine_tune is None or request.early_stopping is None):
        return None
    if largest_class is not None and largest_class < 2:
        detail = "A sweep and early stopping need validation images, and no class has two training images."
        raise Invalid.field("#/head", detail, ErrorCode.VALIDATION_EMPTY)
    return DEFAULT_VALIDATION


def _asked(request: TrainJobCreate) -> HeadSettings:
    settings: dict[str, Any] = {}
    if request.fine_tune is None:
        settings |= {"epochs": request.epochs, "batch_size": request.batch_size}
    if request.head is None:
        settings |= {"lr": request.optimizer.lr, "momentum": request.optimizer.momentum}
    else:
        settings |= request.head.model_dump()
    if request.early_stopping is not None and request.fine_tune is None:
        settings["patience"] = request.early_stopping.patience
    return HeadSettings(**settings)


def num_epochs(settings: HeadSettings) -> int:
    """Return how many epochs a head reports."""
    return settings.epochs if settings.is_iterative else 1


def head_json(settings: HeadSettings) -> dict[str, Any]:
    """Return the settings as the job's spec keeps them."""
    return asdict(settings)


def resolve_fine_tuning(request: TrainJobCreate) -> dict[str, Any] | None:
    """Return the settings of the fine-tuning, with every default filled in; None where the request asks for none.

    Raises:
        Invalid: There are more epochs, or larger batches, than a fine-tuning may have.
    """
    if request.fine_tune is None:
        return None
    given: dict[str, Any] = {
        name: getattr(request, name) for name in ("epochs", "batch_size") if name in request.model_fields_set
    }
    for name, most in (("epochs", MAX_FINE_TUNE_EPOCHS), ("batch_size", MAX_FINE_TUNE_BATCH)):
        if given.get(name, 0) > most:
            raise Invalid.field(f"#/{name}", f"A fine-tuning takes at most {most}.", ErrorCode.TOO_LARGE)
    patience = None if request.early_stopping is None else request.early_stopping.patience
    return asdict(FineTuneSettings(mode=request.fine_tune, patience=patience, seed=request.seed, **given))


def check_fine_tuning(
    backbone: BackboneDescription, settings: Mapping[str, Any], num_classes: int, folder: DataFolder
) -> None:
    """Refuse a fine-tuning that this node cannot carry out; builds the network without weights.

    Args:
        backbone: What is fine-tuned.
        settings: What `resolve_fine_tuning` returned.
        num_classes: K.
        folder: Where the checkpoints and the model will lie.

    Raises:
        Invalid: `fine_tune_not_supported`.
        StorageFull: The files do not fit.
    """
    network = network_of(backbone)
    from app.finetuning.checkpoints import check_room  # imports torch's networks: only where a request fine-tunes

    plan = FineTunePlan(
        backbone=BackboneSpec(network.library, network.architecture, network.options),
        weights=network.weights,
        weights_sha256=backbone.facts.weights_sha256,
        preprocessing={},
        classes=tuple(map(str, range(max(num_classes, 1)))),
        train=(),
        validation=(),
        settings=FineTuneSettings.from_json(settings),
    )
    folder.reserve.check()
    check_room(folder.root / FINE_TUNING, plan)
