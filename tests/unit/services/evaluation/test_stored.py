"""Metrics to and from the database's columns, those of older releases included."""

import json

import numpy as np

from app.schemas.evaluations import MetricsRead, MetricsSummary
from app.services.evaluation.assess import EvaluatedImages, assess
from app.services.evaluation.stored import metrics_columns, read_metrics, read_summary, without_images

CLASSES = [f"class {index}" for index in range(200)]
OLD_TABLES = {
    "train": {"per_class": [], "confusion_matrix": [[4, 0], [0, 4]]},
    "test": {"per_class": [], "confusion_matrix": [[3, 1], [2, 2]]},
}
OLD_METRICS = {"train": {"accuracy": 1.0, "macro_f1": 1.0}, "test": {"accuracy": 0.625, "macro_f1": 0.6190476}}


def metrics() -> MetricsRead:
    labels = np.arange(2_000) % 200
    images = EvaluatedImages(labels, np.arange(2_000) < 1_000)
    probabilities = np.random.default_rng(0).dirichlet(np.full(200, 0.1), 2_000)
    test = assess("test", probabilities, images, CLASSES)
    return MetricsRead(train=test, validation=without_images("validation"), test=test)


def test_the_columns_give_back_the_metrics_and_lists_stay_small() -> None:
    written = metrics()
    summary, tables = (json.loads(json.dumps(column)) for column in metrics_columns(written))
    assert read_metrics(tables, CLASSES) == written
    read = read_summary(summary, {})
    assert type(read) is MetricsSummary
    assert read.test.headline == written.test.headline
    assert read.test.real is not None
    assert not hasattr(read.test.real, "per_class")
    assert len(json.dumps(summary)) < 6_000


def test_metrics_of_an_older_release_are_read_and_marked_as_not_kept_apart() -> None:
    read = read_metrics(OLD_TABLES, ["fox", "dog"])
    assert read.test.real is None
    assert read.test.synthetic is None
    assert read.test.unseparated is not None
    assert read.test.unseparated.accuracy.value == 0.625
    assert (read.test.headline.source, read.test.headline.accuracy) == (None, read.test.unseparated.accuracy)
    assert "earlier release" in read.test.headline.sentence
    assert read.validation == without_images("validation")


def test_a_summary_of_an_older_release_has_the_same_interval() -> None:
    summary = read_summary(OLD_METRICS, {"train": 8, "test": 8})
    assert summary.test.unseparated is not None
    full = read_metrics(OLD_TABLES, ["fox", "dog"])
    assert full.test.unseparated is not None
    assert summary.test.unseparated.accuracy == full.test.unseparated.accuracy
    assert summary.test.headline == full.test.headline


def test_an_older_model_without_test_images_or_tables() -> None:
    only_train = {"train": OLD_METRICS["train"]}
    assert read_summary(only_train, {"train": 8}).test.headline.accuracy is None
    assert read_metrics({}, ["fox", "dog"]).train.unseparated is None
    assert read_summary(OLD_METRICS, {}).test.unseparated is None
