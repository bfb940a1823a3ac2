"""What an evaluation needs of a model and a dataset, and when it is refused: at the request, and again in the job.

Imports no inference, no torch and no HTTP framework. Functions run inside the caller's session, on the caller's thread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, TrainedModel
from app.error_codes import ErrorCode
from app.errors import Conflict, Invalid
from app.names import name_key
from app.schemas.evaluations import EvaluatedSplit
from app.services.datasets.versions import images_of, num_images_of
from app.services.evaluation.report.picture import fitted

# Most classes that an error detail names, and the columns of each name.
MAX_NAMED = 5
_NAME_COLUMNS = 40


@dataclass(frozen=True, slots=True)
class EvaluatedImage:
    """An image of the evaluated split; `class_index` is an index into the model's classes."""

    id: str
    source: str
    class_index: int
    seed: int | None


def split_columns(dataset_id: str, split: EvaluatedSplit) -> Select[Any]:
    """Select the columns that an evaluation needs of the images of a split, in a fixed order."""
    file: tuple[Any, ...] = (Image.id, Image.dataset_id, Image.path, Image.sha256, Image.num_bytes)
    query = images_of(dataset_id).where(Image.split == split)
    return query.with_only_columns(*file, Image.split, Image.class_index, Image.source, Image.seed)


def match_classes(dataset: Dataset, classes: Sequence[str]) -> list[int]:
    """Return the index among the model's classes of each class of a dataset.

    Names are compared by the rule of `app/names.py`. The dataset need not have all classes of the model.

    Raises:
        Invalid: `classes_unknown`: the model does not know a class; the detail names the first of them.
    """
    names = [entry["name"] for entry in dataset.classes]
    exact = {name: index for index, name in reversed(list(enumerate(classes)))}
    by_key = {name_key(name): index for index, name in reversed(list(enumerate(classes)))}
    found = [exact.get(name, by_key.get(name_key(name))) for name in names]
    unknown = [name for name, index in zip(names, found, strict=True) if index is None]
    if unknown:
        more = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
        listed = ", ".join(f"“{fitted(name, _NAME_COLUMNS)}”" for name in unknown[:MAX_NAMED])
        detail = f"{len(unknown)} of the dataset's {len(names)} classes are unknown to the model: {listed}{more}."
        raise Invalid.field("#/dataset_id", detail, ErrorCode.CLASSES_UNKNOWN)
    return [index for index in found if index is not None]


def require_images(session: Session, dataset_id: str, split: EvaluatedSplit) -> int:
    """Return how many images a split has.

    Raises:
        Invalid: `split_empty`: it has none.
    """
    num = num_images_of(session, dataset_id, split=split)
    if num == 0:
        detail = f"The dataset has no {split} images. Upload some, or choose another split."
        raise Invalid.field("#/split", detail, ErrorCode.SPLIT_EMPTY)
    return num


def refuse_other_backbone(model: TrainedModel, found: Mapping[str, Any] | None) -> None:
    """Raise unless the node has the backbone of a model, with the same weights and preprocessing.

    Args:
        model: The model.
        found: `weights_sha256` and `preprocessing` of the node's backbone of this name; None: it has none.

    Raises:
        Conflict: `model_backbone_mismatch`.
    """
    stored = (model.lineage.get("backbone") or {}).get("preprocessing")
    if found is None:
        fault = "is not on this node"
    elif found["weights_sha256"] != model.backbone_sha256:
        fault = "has other weights on this node"
    elif isinstance(stored, dict) and _transforms(stored) != _transforms(found["preprocessing"]):
        fault = "prepares pictures in another way on this node"
    else:
        return
    raise backbone_mismatch(model.backbone, model.backbone_sha256, fault)


def backbone_mismatch(name: str, weights_sha256: str, fault: str) -> Conflict:
    """Return the error for a model whose backbone the node does not have; `fault` says after "which" why."""
    return Conflict(
        f"This model was trained on the backbone {name}, which {fault}. Install the weights with the SHA-256 "
        f"{weights_sha256[:12]}…, or train a new model.",
        code=ErrorCode.MODEL_BACKBONE_MISMATCH,
    )


def _transforms(preprocessing: Any) -> Any:
    """Return the settings alone; those of a combined backbone also have what computed its parts."""
    parts = preprocessing.get("parts") if isinstance(preprocessing, dict) else None
    return preprocessing if parts is None else [part["preprocessing"] for part in parts]


def majority_of_training(tables: Mapping[str, Any]) -> int | None:
    """Return the most frequent class of a model's training images, the first of equals; None where it is not known.

    Args:
        tables: The column `metric_tables`; those of releases before 0.3 are read too.
    """
    train = tables.get("train") or {}
    parts = [train, *(train.get(part) or {} for part in ("real", "synthetic", "unseparated"))]
    supports = [[one["support"] for one in part["per_class"]] for part in parts if part.get("per_class")]
    if not supports:
        return None
    counts = [sum(column) for column in zip(*supports, strict=True)]
    return counts.index(max(counts)) if any(counts) else None
