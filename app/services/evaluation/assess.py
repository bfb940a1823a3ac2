"""The metrics of a classifier on a split: real and generated images apart, against baselines, with one headline.

Imports no database models and no HTTP framework. Pure functions; run in the worker, on the thread of the job.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.schemas.common import ImageSource
from app.schemas.evaluations import (
    BaselineRead,
    BaselinesRead,
    EvaluatedSplit,
    HeadlineRead,
    Interval,
    SourcedMetricsRead,
    SplitMetricsRead,
)
from app.services.evaluation.records import difference_read, split_metrics_read
from app.training.comparison import compare_paired
from app.training.intervals import wilson
from app.training.metrics import evaluate_split
from app.training.predictions import Bools, Integers, Ints, Probabilities

NO_BASELINES = BaselinesRead(majority=None, nearest_centroid=None, clip_zero_shot=None)


@dataclass(frozen=True, slots=True)
class EvaluatedImages:
    """The images of one split.

    Attributes:
        labels: (N,), the true classes.
        is_real: (N,), bool: uploaded, not generated.
        groups: (N,), integers; generated images of one group share what makes them alike (prompt, seed). Groups of
            real images are ignored. None: every image is its own group.
    """

    labels: Integers
    is_real: Bools
    groups: Ints | None = None


@dataclass(frozen=True, slots=True)
class BaselinePredictions:
    """What the baselines predict for the same images; None where one is not available.

    Attributes:
        majority: The class that is always predicted, as `baselines.majority_class` returns it.
        nearest_centroid: (N,), as `baselines.nearest_centroid` returns it.
        clip_zero_shot: (N,), the classes that CLIP finds most probable.
    """

    majority: int | None = None
    nearest_centroid: Ints | None = None
    clip_zero_shot: Ints | None = None


def assess(
    split: EvaluatedSplit,
    probabilities: Probabilities,
    images: EvaluatedImages,
    class_names: Sequence[str],
    *,
    baselines: BaselinePredictions | None = None,
    seed: int = 0,
) -> SourcedMetricsRead:
    """Compute the metrics of a classifier on a split.

    Args:
        split: Named in the headline.
        probabilities: (N, K), of each image and class; rows sum to 1. N = 0 is a split without images.
        images: The images.
        class_names: The names of the K classes, by label.
        baselines: What to compare with; None: nothing.
        seed: Of the bootstrap.

    Raises:
        ValueError: As `evaluate_split`.
    """
    real, synthetic = (_on(rows, probabilities, images, class_names) for rows in (images.is_real, ~images.is_real))
    source: ImageSource = "real" if real is not None else "synthetic"
    rows = np.flatnonzero(images.is_real if source == "real" else ~images.is_real)
    compared = NO_BASELINES
    if baselines is not None and len(rows):
        is_right = probabilities[rows].argmax(axis=1) == images.labels[rows]
        compared = _baselines(baselines, source, is_right, rows, images, seed)
    return SourcedMetricsRead(
        real=real,
        synthetic=synthetic,
        unseparated=None,
        headline=headline(split, real, synthetic),
        baselines=compared,
    )


def headline(split: EvaluatedSplit, real: SplitMetricsRead | None, synthetic: SplitMetricsRead | None) -> HeadlineRead:
    """Return the one figure to quote: that of real images, if there are any."""
    if real is not None:
        sentence = f"On uploaded images: {in_words(real.accuracy)}."
        return HeadlineRead(source="real", accuracy=real.accuracy, sentence=sentence)
    if synthetic is not None:
        sentence = (
            f"Measured on generated images only: {in_words(synthetic.accuracy)}. Images of the generator that made the "
            "training images are easier than any others; upload test images to measure what users will see."
        )
        return HeadlineRead(source="synthetic", accuracy=synthetic.accuracy, sentence=sentence)
    return HeadlineRead(source=None, accuracy=None, sentence=f"There are no {split} images.")


def in_words(accuracy: Interval) -> str:
    """Return an accuracy with its interval as a part of a sentence."""
    ends = f"{accuracy.low:.1%} to {accuracy.high:.1%}"
    return f"{accuracy.value:.1%} of {accuracy.n} images are right (95% interval {ends})"


def _on(
    rows: Bools, probabilities: Probabilities, images: EvaluatedImages, class_names: Sequence[str]
) -> SplitMetricsRead | None:
    if not rows.any():
        return None
    return split_metrics_read(evaluate_split(probabilities[rows], images.labels[rows], class_names))


def _baselines(
    baselines: BaselinePredictions, source: ImageSource, is_right: Bools, rows: Ints, images: EvaluatedImages, seed: int
) -> BaselinesRead:
    labels = images.labels[rows]
    groups = images.groups[rows] if images.groups is not None and source == "synthetic" else None

    def compare(predicted: Ints | None) -> BaselineRead | None:
        if predicted is None:
            return None
        baseline = np.equal(predicted[rows], labels)
        return BaselineRead(
            source=source,
            accuracy=Interval.model_validate(wilson(int(baseline.sum()), len(rows))),
            model_minus_baseline=difference_read(compare_paired(is_right, baseline, groups=groups, seed=seed)),
        )

    majority = None if baselines.majority is None else np.full(len(images.labels), baselines.majority)
    return BaselinesRead(
        majority=compare(majority),
        nearest_centroid=compare(baselines.nearest_centroid),
        clip_zero_shot=compare(baselines.clip_zero_shot),
    )
