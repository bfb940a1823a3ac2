"""What a trained head is worth: the metrics of each split, baselines, mistakes, suspected label errors and warnings.

Imports no database models and no HTTP framework. Imported by `job.py` when a job trains, as `fitting.py` is. Pure
functions; run in the worker process, on the thread of the job.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from app.schemas.evaluations import LabelErrorsRead, MetricsRead, SourcedMetricsRead
from app.schemas.generations import WarningRead
from app.services.evaluation.assess import BaselinePredictions
from app.services.evaluation.details import EvaluationDetails
from app.services.evaluation.evaluate import EvaluatedRow, evaluate_images, image_url
from app.services.evaluation.predictions import StoredPredictions
from app.services.evaluation.records import label_errors_read
from app.services.evaluation.warnings import data_warnings, few_images_warnings, imbalance_warnings
from app.services.training.fitting import FittedHead
from app.services.training.payloads import Examples
from app.training.baselines import majority_class, nearest_centroid
from app.training.label_errors import find_label_errors
from app.training.near_duplicates import num_pairs_across_labels

# What a head warns of by its rows, which are images and views of them; here it is said of images, by their classes.
_OF_ROWS = ("imbalanced", "few_training_images")


@dataclass(frozen=True, slots=True)
class AssessedModel:
    """What is known of a model when its training ends.

    Attributes:
        metrics: Of all three splits.
        test: The evaluation of the test split, as it is stored.
        details: Mistakes, label errors and warnings.
        predictions: Of the test images.
    """

    metrics: MetricsRead
    test: SourcedMetricsRead
    details: EvaluationDetails
    predictions: StoredPredictions

    def to_json(self) -> dict[str, Any]:
        """Return what the test's row in the table `evaluations` is made from."""
        return {
            "metrics": self.test.model_dump(mode="json"),
            "details": self.details.to_json(),
            "predictions": self.predictions.to_json(),
        }


def assess_model(
    fitted: FittedHead,
    examples: Examples,
    images: Sequence[EvaluatedRow],
    classes: Sequence[str],
    *,
    clip_zero_shot: np.ndarray | None = None,
    seed: int = 0,
) -> AssessedModel:
    """Evaluate a trained head on the images of its dataset.

    Args:
        fitted: The head.
        examples: What it was trained and tested on.
        images: The images, in the order of the examples.
        classes: The names of the K classes, by label.
        clip_zero_shot: (N,), the class that CLIP finds most probable for each image, -1 where it was not asked; None:
            CLIP was not asked at all.
        seed: Of the bootstrap.
    """
    is_trained = examples.is_train & ~fitted.is_validation
    rows = {"train": is_trained, "validation": fitted.is_validation, "test": examples.is_test}
    baselines = _baselines(examples, is_trained, len(classes), clip_zero_shot)
    found = {
        split: evaluate_images(
            fitted.probabilities[chosen],
            [images[row] for row in np.flatnonzero(chosen).tolist()],
            split=split,  # type: ignore[arg-type]  # the three names above
            classes=classes,
            baselines=None if split == "train" else _of_rows(baselines, chosen),
            seed=seed,
        )
        for split, chosen in rows.items()
    }
    test, details, predictions = found["test"]
    errors = _label_errors(fitted, examples, images, classes)
    details = replace(details, label_errors=errors)
    details.warnings.extend(_warnings(fitted, examples, is_trained, classes, errors))
    metrics = MetricsRead(train=found["train"][0], validation=found["validation"][0], test=test)
    return AssessedModel(metrics, test, details, predictions)


def _baselines(
    examples: Examples, is_trained: np.ndarray, num_classes: int, clip_zero_shot: np.ndarray | None
) -> BaselinePredictions:
    labels = examples.labels[is_trained]
    return BaselinePredictions(
        majority=majority_class(labels, num_classes),
        nearest_centroid=nearest_centroid(examples.features[is_trained], labels, examples.features, num_classes),
        clip_zero_shot=clip_zero_shot,
    )


def _of_rows(baselines: BaselinePredictions, chosen: np.ndarray) -> BaselinePredictions:
    centroid, zero_shot = baselines.nearest_centroid, baselines.clip_zero_shot
    is_asked = zero_shot is not None and bool(chosen.any()) and bool((zero_shot[chosen] >= 0).all())
    return BaselinePredictions(
        majority=baselines.majority,
        nearest_centroid=None if centroid is None else centroid[chosen],
        clip_zero_shot=zero_shot[chosen] if is_asked and zero_shot is not None else None,
    )


def _label_errors(
    fitted: FittedHead, examples: Examples, images: Sequence[EvaluatedRow], classes: Sequence[str]
) -> LabelErrorsRead | None:
    """Examine the labels of uploaded training images; those of generated ones are the prompts'."""
    if fitted.out_of_sample is None:
        return None
    train = np.flatnonzero(examples.is_train)
    is_real = np.array([images[row].source == "real" for row in train.tolist()], np.bool_)
    if not is_real.any():
        return None
    found = find_label_errors(fitted.out_of_sample[is_real], examples.labels[train][is_real])
    ids = [images[row].id for row in train[is_real].tolist()]
    return label_errors_read(found, image_ids=ids, class_names=classes, url=image_url)


def _warnings(
    fitted: FittedHead,
    examples: Examples,
    is_trained: np.ndarray,
    classes: Sequence[str],
    errors: LabelErrorsRead | None,
) -> list[WarningRead]:
    sizes = np.bincount(examples.labels[is_trained], minlength=len(classes)).tolist()
    warnings = [
        WarningRead(code=one.code, detail=one.detail) for one in fitted.result.warnings if one.code not in _OF_ROWS
    ]
    warnings += few_images_warnings(classes, sizes) + imbalance_warnings(classes, sizes)
    return warnings + data_warnings(
        num_label_errors=errors.num_suspected if errors else 0,
        num_examined=errors.n if errors else 0,
        num_near_duplicates=num_pairs_across_labels(examples.features, examples.labels),
    )
