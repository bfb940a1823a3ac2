"""Figures as schemas: bounds, names, and links."""

import numpy as np

from app.schemas.evaluations import SplitMetricsRead
from app.services.evaluation.records import label_errors_read, mistakes_read, split_metrics_read
from app.training.label_errors import find_label_errors
from app.training.metrics import evaluate_split
from app.training.mistakes import find_mistakes
from app.training.predictions import read_predictions


def metrics_of(k: int, n: int) -> SplitMetricsRead:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, k, n)
    probabilities = rng.dirichlet(np.full(k, 0.1), n)
    return split_metrics_read(evaluate_split(probabilities, labels, [f"class {index}" for index in range(k)]))


def test_a_thousand_classes_stay_below_half_a_megabyte() -> None:
    read = metrics_of(1_000, 5_000)
    assert (len(read.confusion_matrix), len(read.confusion_classes), read.num_merged_classes) == (100, 99, 901)
    assert sum(map(sum, read.confusion_matrix)) == 5_000
    assert (len(read.per_class), len(read.confused)) == (1_000, 50)
    assert len(read.model_dump_json()) < 500_000


def test_a_few_classes_have_the_whole_matrix_and_the_frequent_errors() -> None:
    read = metrics_of(4, 300)
    assert (len(read.confusion_matrix), read.num_merged_classes) == (4, 0)
    worst = read.confused[0]
    names = read.confusion_classes
    cells = [read.confusion_matrix[i][j] for i in range(4) for j in range(4) if i != j]
    assert worst.count == max(cells)
    assert worst.count == read.confusion_matrix[names.index(worst.class_name)][names.index(worst.predicted_class)]
    assert SplitMetricsRead.model_validate_json(read.model_dump_json()) == read


def test_mistakes_and_label_errors_carry_links_and_names() -> None:
    labels = np.array([0] * 20 + [1] * 20)
    probabilities = np.where(np.eye(2)[labels] == 1, 0.9, 0.1)
    probabilities[3] = [0.05, 0.95]
    ids = [f"image-{index}" for index in range(40)]
    mistakes = mistakes_read(
        find_mistakes(read_predictions(probabilities, labels)),
        image_ids=ids,
        sources=["real"] * 40,
        class_names=["fox", "dog"],
        url="/images/{}/content".format,
    )
    assert [(one.url, one.true_class, one.predicted_class) for one in mistakes] == [
        ("/images/image-3/content", "fox", "dog")
    ]
    errors = label_errors_read(
        find_label_errors(probabilities, labels), image_ids=ids, class_names=["fox", "dog"], url="/images/{}".format
    )
    assert errors.num_suspected == 1
    assert (errors.listed[0].image_id, errors.listed[0].given_class, errors.listed[0].suggested_class) == (
        "image-3",
        "fox",
        "dog",
    )
