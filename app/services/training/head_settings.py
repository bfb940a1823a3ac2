"""The settings of a train job's head: from the request to values that the job's spec keeps.

Imports no HTTP framework. Runs on a worker thread of the API process.
"""

from dataclasses import asdict
from typing import Any

from app.error_codes import ErrorCode
from app.errors import Invalid
from app.schemas.train_jobs import TrainJobCreate
from app.training.settings import HeadSettings, default_settings

DEFAULT_VALIDATION = {"fraction": 0.2}
# Members whose presence in a request means that the user has chosen a solver.
_CHOICES = {"head", "optimizer", "epochs", "batch_size", "early_stopping"}


def resolve_head(request: TrainJobCreate, *, smallest_class: int | None, taught: str | None) -> HeadSettings:
    """Return how the head is trained, with every default filled in.

    Args:
        request: The request.
        smallest_class: Training images of the smallest class; None: they are still to be generated.
        taught: What the backbone was taught, as `GET /backbones` says it.

    Raises:
        Invalid: The settings exclude each other.
    """
    if request.preset is not None:
        return HeadSettings(solver="lbfgs")  # one fit without epochs; the recipe has its own settings
    few = smallest_class is not None and not _CHOICES & request.model_fields_set
    if few and taught != "drawings":
        return default_settings(smallest_class or 0)
    settings = _asked(request)
    try:
        settings.check()
    except ValueError as error:
        raise Invalid.field("#/head", str(error), ErrorCode.BAD_HEAD) from None
    return settings


def resolve_validation(request: TrainJobCreate, head: HeadSettings, *, largest_class: int | None) -> Any:
    """Return the request's validation split, or the default one where the head needs some; None: there is none.

    Raises:
        Invalid: The head needs validation images, and no class has two training images.
    """
    if request.validation is not None:
        return request.validation.model_dump(mode="json")
    if not head.needs_validation:
        return None
    if largest_class is not None and largest_class < 2:
        detail = "A sweep and early stopping need validation images, and no class has two training images."
        raise Invalid.field("#/head", detail, ErrorCode.VALIDATION_EMPTY)
    return DEFAULT_VALIDATION


def _asked(request: TrainJobCreate) -> HeadSettings:
    settings: dict[str, Any] = {"epochs": request.epochs, "batch_size": request.batch_size}
    if request.head is None:
        settings |= {"lr": request.optimizer.lr, "momentum": request.optimizer.momentum}
    else:
        settings |= request.head.model_dump()
    if request.early_stopping is not None:
        settings["patience"] = request.early_stopping.patience
    return HeadSettings(**settings)


def num_epochs(settings: HeadSettings) -> int:
    """Return how many epochs a head reports."""
    return settings.epochs if settings.is_iterative else 1


def head_json(settings: HeadSettings) -> dict[str, Any]:
    """Return the settings as the job's spec keeps them."""
    return asdict(settings)
