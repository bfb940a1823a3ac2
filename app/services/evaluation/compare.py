"""Comparison of models by what each predicted for the same images.

Imports no database models and no HTTP framework. Pure functions; run on a pool thread, not on the event loop: ten
models on 100,000 images take some seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from app.schemas.common import ImageSource
from app.schemas.evaluations import Interval
from app.schemas.generations import WarningRead
from app.schemas.model_comparisons import ComparedModel, ComparedPair, ComparisonOnSource, ModelComparisonRead
from app.services.evaluation.records import difference_read
from app.training.comparison import compare_paired
from app.training.intervals import wilson
from app.training.predictions import Bools


@dataclass(frozen=True, slots=True)
class ImagePrediction:
    """What a model predicted for one image.

    Attributes:
        image_id: The image.
        source: Whether it was uploaded (`real`) or generated.
        true_class: The name of its class.
        predicted_class: The name of the most probable class.
        group: Generated images of one group share prompt and seed; empty: a group of its own.
    """

    image_id: str
    source: ImageSource
    true_class: str
    predicted_class: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class ModelPredictions:
    """What one model predicted for the images that it was evaluated on."""

    model_id: str
    name: str
    predictions: Sequence[ImagePrediction]


def compare_models(models: Sequence[ModelPredictions], *, seed: int = 0) -> ModelComparisonRead:
    """Compare each two of the models on the images that all of them were evaluated on.

    Classes are compared by name, so models of different class sets can be compared.

    Args:
        models: At least two.
        seed: Of the bootstrap.
    """
    tables = [{one.image_id: one for one in model.predictions} for model in models]
    shared = [one.image_id for one in models[0].predictions if _agree([table.get(one.image_id) for table in tables])]
    seen = set().union(*tables)
    on_source = {
        source: _on_source(models, tables, [image for image in shared if tables[0][image].source == source], seed)
        for source in ("real", "synthetic")
    }
    warnings = []
    if not shared:
        detail = "There is no image that all of these models were evaluated on. Evaluate them on the same dataset."
        warnings.append(WarningRead(code="no_common_images", detail=detail))
    elif on_source["real"] is None:
        detail = "Compared on generated images only. Evaluate the models on a dataset of uploaded images."
        warnings.append(WarningRead(code="synthetic_test_only", detail=detail))
    return ModelComparisonRead(
        real=on_source["real"],
        synthetic=on_source["synthetic"],
        num_left_out=len(seen) - len(shared),
        warnings=warnings,
    )


def _agree(found: Sequence[ImagePrediction | None]) -> bool:
    """Return whether every model has the image, with the same true class."""
    return len({None if one is None else one.true_class for one in found}) == 1 and found[0] is not None


def _on_source(
    models: Sequence[ModelPredictions],
    tables: Sequence[dict[str, ImagePrediction]],
    images: Sequence[str],
    seed: int,
) -> ComparisonOnSource | None:
    if not images:
        return None
    rights = [_rights(table, images) for table in tables]
    rows = [tables[0][image] for image in images]
    _, groups = np.unique([f"group {row.group}" if row.group else row.image_id for row in rows], return_inverse=True)
    is_grouped = rows[0].source == "synthetic" and any(row.group for row in rows)
    pairs = []
    for first, second in combinations(range(len(models)), 2):
        found = compare_paired(rights[first], rights[second], groups=groups if is_grouped else None, seed=seed)
        ids = {"first_id": models[first].model_id, "second_id": models[second].model_id}
        pairs.append(ComparedPair(**difference_read(found).model_dump(), **ids))
    compared = [
        ComparedModel(
            id=model.model_id,
            name=model.name,
            accuracy=Interval.model_validate(wilson(int(right.sum()), len(images))),
        )
        for model, right in zip(models, rights, strict=True)
    ]
    return ComparisonOnSource(num_images=len(images), models=compared, pairs=pairs)


def _rights(table: dict[str, ImagePrediction], images: Sequence[str]) -> Bools:
    return np.array([table[image].predicted_class == table[image].true_class for image in images])
