"""One evaluation: from class probabilities of a split's images to the figures, details and predictions that are stored.

Train jobs (their own splits) and `evaluate` jobs (any dataset) both call `evaluate_images`. Imports no database models,
no torch and no HTTP framework. Pure functions; run in the worker, on the thread of the job.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from app.schemas.common import ImageSource
from app.schemas.evaluations import EvaluatedSplit, MistakeRead, SourcedMetricsRead
from app.services.evaluation.assess import BaselinePredictions, EvaluatedImages, assess
from app.services.evaluation.details import EvaluationDetails
from app.services.evaluation.predictions import StoredPredictions
from app.services.evaluation.records import mistakes_read
from app.services.evaluation.warnings import warnings_about_test
from app.training.mistakes import MAX_LISTED, find_mistakes
from app.training.predictions import Ints, Predictions, Probabilities, read_predictions


class EvaluatedRow(Protocol):
    """An image of the split: a row of the table `images`, or a record with the same names."""

    @property
    def id(self) -> str:
        """The image's id."""

    @property
    def source(self) -> str:
        """`real` or `synthetic`."""

    @property
    def class_index(self) -> int:
        """The true class, an index into the model's classes."""

    @property
    def seed(self) -> int | None:
        """The seed that the image was generated from; None for uploaded images."""


def evaluate_images(
    probabilities: Probabilities,
    images: Sequence[EvaluatedRow],
    *,
    split: EvaluatedSplit,
    classes: Sequence[str],
    baselines: BaselinePredictions | None = None,
    seed: int = 0,
) -> tuple[SourcedMetricsRead, EvaluationDetails, StoredPredictions]:
    """Evaluate a classifier on the images of a split.

    Args:
        probabilities: Of each image and class; rows sum to 1.
        images: In the order of the rows.
        split: Their split.
        classes: The names of the model's K classes, by label.
        baselines: What to compare with; None: nothing.
        seed: Of the bootstrap.

    Shapes:
        probabilities: (N, K), any float type, N >= 0.

    Returns:
        The metrics; the mistakes of the headline's source with the warnings about the metrics (`label_errors` is None:
        the caller replaces it); what was predicted for each image.

    Raises:
        ValueError: The sizes differ, a class is out of range, or a row is no distribution.
    """
    labels = np.fromiter((image.class_index for image in images), np.int64, len(images))
    is_real = np.fromiter((image.source == "real" for image in images), np.bool_, len(images))
    groups = seed_groups(images)
    metrics = assess(
        split, probabilities, EvaluatedImages(labels, is_real, groups), classes, baselines=baselines, seed=seed
    )
    rows = read_predictions(probabilities, labels)
    details = EvaluationDetails(
        mistakes=_mistakes(rows, images, classes, metrics.headline.source), warnings=warnings_about_test(metrics)
    )
    predictions = StoredPredictions(
        classes=list(classes),
        image_ids=[image.id for image in images],
        is_real=is_real.astype(int).tolist(),
        labels=rows.labels.tolist(),
        predicted=rows.predicted.tolist(),
        confidence=[round(value, 4) for value in rows.confidence.tolist()],
        groups=[] if groups is None else groups.tolist(),
    )
    return metrics, details, predictions


def seed_groups(images: Sequence[EvaluatedRow]) -> Ints | None:
    """Return a number for each image, (N,), equal for generated images of one class and seed; None if all differ.

    Within a class, images that share a seed are variants of one image. Other rows get numbers of their own.
    """
    numbers: dict[tuple[int, int], int] = {}
    groups = np.arange(len(images), dtype=np.int64)
    for row, image in enumerate(images):
        if image.source == "synthetic" and image.seed is not None:
            groups[row] = numbers.setdefault((image.class_index, image.seed), row)
    return None if (groups == np.arange(len(images))).all() else groups


def image_url(image_id: str) -> str:
    """Return the URL of an image on this service."""
    return f"/images/{image_id}"


def _mistakes(
    rows: Predictions, images: Sequence[EvaluatedRow], classes: Sequence[str], source: ImageSource | None
) -> list[MistakeRead]:
    """Return the most confident mistakes among the images of the headline."""
    of_source = (one for one in find_mistakes(rows, len(rows)) if images[one.index].source == source)
    listed = [one for one, _ in zip(of_source, range(MAX_LISTED), strict=False)]
    sources: list[ImageSource] = ["real" if image.source == "real" else "synthetic" for image in images]
    ids = [image.id for image in images]
    return mistakes_read(listed, image_ids=ids, sources=sources, class_names=classes, url=image_url)
