"""Metrics by source, the headline, baselines and warnings."""

import numpy as np
import pytest

from app.schemas.evaluations import SourcedMetricsRead
from app.services.evaluation.assess import BaselinePredictions, EvaluatedImages, assess
from app.services.evaluation.stored import without_images
from app.services.evaluation.warnings import data_warnings, imbalance_warnings, warnings_about_test

NAMES = ["fox", "dog"]


def outputs(labels: np.ndarray, wrong: int) -> np.ndarray:
    """Probabilities of 0.8 for the true class, and for the other one in the first `wrong` rows."""
    said = labels.copy()
    said[:wrong] = 1 - said[:wrong]
    return np.where(np.eye(2)[said] == 1, 0.8, 0.2)


def balanced(n: int) -> np.ndarray:
    return np.arange(n) % 2


def assessed(
    real: tuple[int, int], synthetic: tuple[int, int], baselines: BaselinePredictions | None = None
) -> SourcedMetricsRead:
    """Metrics of (images, wrong ones) of each source."""
    labels = np.concatenate([balanced(real[0]), balanced(synthetic[0])])
    probabilities = np.concatenate([outputs(balanced(n), wrong) for n, wrong in (real, synthetic)])
    images = EvaluatedImages(labels, np.arange(len(labels)) < real[0])
    return assess("test", probabilities, images, NAMES, baselines=baselines)


def codes(test: SourcedMetricsRead) -> list[str]:
    return [warning.code for warning in warnings_about_test(test)]


def test_real_and_generated_images_are_never_mixed_and_real_ones_are_the_headline() -> None:
    """The case of the trial: 166 real images at two thirds, 25 generated ones all right, 0.717 together."""
    test = assessed((166, 54), (25, 0))
    assert test.real is not None
    assert test.synthetic is not None
    assert (test.real.n, test.synthetic.n) == (166, 25)
    assert test.real.accuracy.value == pytest.approx(112 / 166)
    assert test.synthetic.accuracy.value == 1.0
    assert test.headline.source == "real"
    assert test.headline.accuracy == test.real.accuracy
    assert test.headline.sentence.startswith("On uploaded images: 67.5% of 166 images are right (95% interval ")


def test_a_generated_test_says_so_in_its_first_words() -> None:
    test = assessed((0, 0), (200, 0))
    assert test.real is None
    assert test.headline.source == "synthetic"
    assert test.headline.sentence.startswith("Measured on generated images only: 100.0% of 200")
    assert codes(test) == ["synthetic_test_only"]


def test_no_images_at_all() -> None:
    test = assessed((0, 0), (0, 0))
    assert (test.real, test.synthetic, test.headline.source, test.headline.accuracy) == (None, None, None, None)
    assert codes(test) == ["no_test_images"]
    assert test == without_images("test")


def test_baselines_are_measured_on_the_headlines_images() -> None:
    labels = balanced(166)
    predictions = np.concatenate([labels, 1 - balanced(40)])
    baselines = BaselinePredictions(majority=0, nearest_centroid=predictions)
    test = assessed((166, 54), (40, 0), baselines)
    majority, centroid = test.baselines.majority, test.baselines.nearest_centroid
    assert majority is not None
    assert centroid is not None
    assert test.baselines.clip_zero_shot is None
    assert (majority.source, majority.accuracy.value, majority.accuracy.n) == ("real", 0.5, 166)
    assert majority.model_minus_baseline.verdict == "better"
    assert centroid.accuracy.value == 1.0
    assert centroid.model_minus_baseline.verdict == "worse"
    assert centroid.model_minus_baseline.difference.value == pytest.approx(-54 / 166)


def test_groups_count_for_generated_images_only() -> None:
    labels, groups = balanced(200), np.repeat(np.arange(10), 20)
    zero_shot = BaselinePredictions(clip_zero_shot=1 - labels)
    for is_real, expected in ((False, 10), (True, 200)):
        images = EvaluatedImages(labels, np.full(200, is_real), groups)
        found = assess("test", outputs(labels, 20), images, NAMES, baselines=zero_shot).baselines.clip_zero_shot
        assert found is not None
        assert found.model_minus_baseline.num_groups == expected


def test_no_better_than_guessing_is_said() -> None:
    """Ants and bees with the demo backbone: 88 of 153 right, the majority class 83 of 153."""
    labels = np.repeat([0, 1], [83, 70])
    probabilities = outputs(labels, 65)
    images = EvaluatedImages(labels, np.ones(153, bool))
    test = assess("test", probabilities, images, NAMES, baselines=BaselinePredictions(majority=0))
    warnings = {warning.code: warning.detail for warning in warnings_about_test(test)}
    assert set(warnings) == {"no_better_than_majority"}
    assert warnings["no_better_than_majority"].startswith("No better than guessing: 57.5% of 153")


def test_a_small_and_an_absent_class_are_named() -> None:
    labels = np.zeros(20, np.int64)
    images = EvaluatedImages(labels, np.ones(20, bool))
    test = assess("test", outputs(labels, 0), images, ["fox", "d" * 200])
    warnings = {warning.code: warning.detail for warning in warnings_about_test(test)}
    assert set(warnings) == {"class_absent_from_test", "few_test_images"}
    assert "“fox”" in warnings["few_test_images"]
    assert len(warnings["class_absent_from_test"]) < 200


def test_losing_against_clip_is_said() -> None:
    test = assessed((200, 80), (0, 0), BaselinePredictions(clip_zero_shot=balanced(200)))
    assert codes(test) == ["worse_than_zero_shot"]


@pytest.mark.parametrize(("counts", "is_warned"), [([100, 10], False), ([100, 2], True), ([5], False), ([], False)])
def test_an_imbalance_over_ten_to_one_is_said(counts: list[int], is_warned: bool) -> None:
    assert bool(imbalance_warnings([f"class {count}" for count in counts], counts)) == is_warned


def test_label_errors_and_duplicates_under_two_labels_are_counted() -> None:
    assert data_warnings(num_label_errors=0, num_examined=10) == []
    found = data_warnings(num_label_errors=3, num_examined=100, num_near_duplicates=18)
    assert [one.code for one in found] == ["suspected_label_errors", "near_duplicates_across_labels"]
    assert found[0].detail.startswith("3 of 100 labels")
