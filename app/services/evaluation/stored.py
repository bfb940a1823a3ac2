"""The metrics of a model as the database stores them, and how those of older releases are read.

A model has two JSON columns: `metrics` has what lists show (`MetricsSummary`), `metric_tables` everything
(`MetricsRead`). Imports no database models and no HTTP framework. Runs on the thread of its caller.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from app.schemas.evaluations import (
    EvaluatedSplit,
    HeadlineRead,
    Interval,
    MetricsRead,
    MetricsSummary,
    SourcedMetricsRead,
    SourcedMetricsSummary,
    SplitMetricsRead,
    SplitMetricsSummary,
)
from app.services.evaluation.assess import NO_BASELINES, headline, in_words
from app.services.evaluation.records import split_metrics_read
from app.training.intervals import wilson
from app.training.metrics import evaluate_confusion

SPLITS: tuple[EvaluatedSplit, ...] = ("train", "validation", "test")


def metrics_columns(metrics: MetricsRead) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of `metrics` and `metric_tables`."""
    tables = metrics.model_dump(mode="json")
    return MetricsSummary.model_validate(tables).model_dump(mode="json"), tables


def read_summary(metrics: Mapping[str, Any], num_images: Mapping[str, int]) -> MetricsSummary:
    """Read the column `metrics`.

    Args:
        metrics: The column's value; releases before 0.3 stored only accuracy and macro-F1 of each split.
        num_images: The number of images of `train` and `test`; used for old rows only. Without it, the figures of
            these are a sentence alone.
    """
    if _is_current(metrics):
        return MetricsSummary.model_validate(metrics)
    return MetricsSummary(
        **{split: _old_summary(split, metrics.get(split), num_images.get(split, 0)) for split in SPLITS}
    )


def read_metrics(tables: Mapping[str, Any], classes: Sequence[str]) -> MetricsRead:
    """Read the column `metric_tables`; releases before 0.3 stored metrics per class and a confusion matrix.

    Args:
        tables: The column's value.
        classes: The names of the model's classes; used for old rows only.
    """
    if _is_current(tables):
        return MetricsRead.model_validate(tables)
    return MetricsRead(**{split: _old_tables(split, tables.get(split), classes) for split in SPLITS})


def without_images(split: EvaluatedSplit) -> SourcedMetricsRead:
    """Return the metrics of a split without images."""
    return SourcedMetricsRead(
        real=None, synthetic=None, unseparated=None, headline=headline(split, None, None), baselines=NO_BASELINES
    )


def _is_current(stored: Mapping[str, Any]) -> bool:
    return "headline" in (stored.get("test") or {})


def _old_tables(split: EvaluatedSplit, stored: Mapping[str, Any] | None, classes: Sequence[str]) -> SourcedMetricsRead:
    confusion = np.array((stored or {}).get("confusion_matrix", []), np.int64)
    if confusion.sum() == 0:
        return without_images(split)
    figures: SplitMetricsRead = split_metrics_read(evaluate_confusion(confusion, classes))
    return without_images(split).model_copy(update={"unseparated": figures, "headline": _old_headline(figures)})


def _old_summary(split: EvaluatedSplit, stored: Mapping[str, Any] | None, n: int) -> SourcedMetricsSummary:
    empty = SourcedMetricsSummary.model_validate(without_images(split).model_dump())
    if not stored or "accuracy" not in stored:
        return empty
    if n < 1:
        return empty.model_copy(update={"headline": _uncounted_headline(stored["accuracy"])})
    # The interval needs the number of right images, which the stored share determines.
    accuracy = Interval.model_validate(wilson(round(stored["accuracy"] * n), n))
    figures = SplitMetricsSummary(
        n=n,
        accuracy=accuracy,
        top_5=None,
        macro_f1=stored.get("macro_f1"),
        balanced_accuracy=None,
        brier=None,
        nll=None,
        ece=None,
        num_small_classes=0,
        num_absent_classes=0,
    )
    return empty.model_copy(update={"unseparated": figures, "headline": _old_headline(figures)})


def _uncounted_headline(accuracy: float) -> HeadlineRead:
    sentence = (
        f"Uploaded and generated images together, by an earlier release: {accuracy:.1%} are right. The model itself "
        "has the number of images."
    )
    return HeadlineRead(source=None, accuracy=None, sentence=sentence)


def _old_headline(figures: SplitMetricsSummary) -> HeadlineRead:
    sentence = (
        f"Uploaded and generated images together, by an earlier release: {in_words(figures.accuracy)}. "
        "Evaluate the model again for figures by source."
    )
    return HeadlineRead(source=None, accuracy=figures.accuracy, sentence=sentence)
