"""One evaluation: what is stored of it, and that it comes back from the database's JSON unchanged."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest

from app.schemas.evaluations import LabelErrorsRead, SourcedMetricsRead
from app.services.evaluation.assess import BaselinePredictions
from app.services.evaluation.details import EvaluationDetails
from app.services.evaluation.evaluate import evaluate_images, seed_groups
from app.services.evaluation.predictions import StoredPredictions


@dataclass
class Row:
    id: str
    source: str
    class_index: int
    seed: int | None = None


def rows(*sources: str) -> list[Row]:
    return [
        Row(f"image-{index}", source, index % 2, None if source == "real" else index)
        for index, source in enumerate(sources)
    ]


def certain(predicted: list[int], confidence: list[float], num_classes: int = 2) -> np.ndarray:
    """Probabilities (N, K) whose row has `confidence` at `predicted` and the rest spread evenly."""
    table = np.repeat((1 - np.array(confidence)[:, None]) / (num_classes - 1), num_classes, axis=1)
    table[np.arange(len(predicted)), predicted] = confidence
    return table


def test_the_mistakes_are_those_of_the_headline_source_and_most_confident_first() -> None:
    images = rows("real", "synthetic", "real", "real", "synthetic")
    table = certain([1, 0, 1, 1, 1], [0.6, 0.99, 0.9, 0.8, 0.98])
    metrics, details, _ = evaluate_images(table, images, split="test", classes=["ant", "bee"])
    assert metrics.headline.source == "real"
    assert [one.image_id for one in details.mistakes] == ["image-2", "image-0"]
    assert details.mistakes[0].url == "/images/image-2"
    assert (details.mistakes[0].true_class, details.mistakes[0].predicted_class) == ("ant", "bee")
    assert {one.source for one in details.mistakes} == {"real"}


def test_everything_survives_the_databases_json() -> None:
    images = rows("real", "real", "synthetic")
    found = evaluate_images(
        certain([0, 0, 1], [0.7, 0.9, 0.8]),
        images,
        split="test",
        classes=["fuchs 🦊", "<b>"],
        baselines=BaselinePredictions(majority=0),
    )
    metrics, details, predictions = found
    details = replace(details, label_errors=LabelErrorsRead(num_suspected=0, n=3, listed=[]))
    assert SourcedMetricsRead.model_validate(json.loads(json.dumps(metrics.model_dump(mode="json")))) == metrics
    assert EvaluationDetails.from_json(json.loads(json.dumps(details.to_json()))) == details
    assert StoredPredictions.from_json(json.loads(json.dumps(predictions.to_json()))) == predictions


def test_predictions_name_image_class_and_source() -> None:
    images = rows("real", "synthetic")
    predictions = evaluate_images(certain([0, 0], [0.7, 0.9]), images, split="test", classes=["a", "b"])[2].by_image()
    assert [(one.image_id, one.source, one.true_class, one.predicted_class) for one in predictions] == [
        ("image-0", "real", "a", "a"),
        ("image-1", "synthetic", "b", "a"),
    ]


def test_images_of_one_class_and_seed_are_one_group() -> None:
    images = [Row("a", "synthetic", 0, 7), Row("b", "synthetic", 0, 7), Row("c", "synthetic", 1, 7)]
    groups = seed_groups(images)
    assert groups is not None
    assert groups.tolist() == [0, 0, 2]
    assert seed_groups(rows("real", "real", "synthetic")) is None


def test_a_split_without_images_has_no_figures_but_a_warning() -> None:
    metrics, details, predictions = evaluate_images(np.zeros((0, 2)), [], split="test", classes=["a", "b"])
    assert metrics.headline.accuracy is None
    assert [one.code for one in details.warnings] == ["no_test_images"]
    assert predictions.by_image() == []


def test_a_thousand_classes_are_evaluated_and_mistakes_stay_bounded() -> None:
    rng = np.random.default_rng(0)
    images = [Row(f"i{n}", "real", n % 1000) for n in range(3000)]
    table = rng.dirichlet(np.ones(1000), 3000)
    metrics, details, predictions = evaluate_images(table, images, split="test", classes=[f"c{k}" for k in range(1000)])
    assert metrics.real is not None
    assert len(metrics.real.confusion_matrix) == 100
    assert len(details.mistakes) == 100
    assert len(predictions.labels) == 3000


def test_a_class_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="label"):
        evaluate_images(certain([0], [0.9]), [Row("a", "real", 5)], split="test", classes=["a", "b"])
