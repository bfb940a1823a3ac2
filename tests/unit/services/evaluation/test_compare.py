"""Comparison of models over stored predictions."""

from collections.abc import Sequence

import pytest

from app.services.evaluation.compare import ImagePrediction, ModelPredictions, compare_models


def model(
    name: str, said: str, *, first: int = 0, source: str = "real", true: str = "a", groups: Sequence[str] = ()
) -> ModelPredictions:
    """A model that said one letter for each image, numbered from `first`."""
    rows = [
        ImagePrediction(f"image-{first + index}", source, true, letter, groups[index] if groups else "")  # type: ignore[arg-type]
        for index, letter in enumerate(said)
    ]
    return ModelPredictions(f"id-{name}", name, rows)


def test_two_models_on_the_same_images() -> None:
    found = compare_models([model("good", "a" * 90 + "b" * 10), model("poor", "a" * 60 + "b" * 40)])
    assert found.real is not None
    assert found.synthetic is None
    assert (found.num_left_out, found.warnings, found.real.num_images) == (0, [], 100)
    assert [one.accuracy.value for one in found.real.models] == [0.9, 0.6]
    (pair,) = found.real.pairs
    assert (pair.first_id, pair.second_id, pair.verdict) == ("id-good", "id-poor", "better")
    assert pair.difference.value == pytest.approx(0.3)


def test_only_images_of_all_models_count_and_the_rest_is_counted() -> None:
    found = compare_models([model("one", "a" * 10), model("other", "a" * 10, first=4), model("third", "a" * 14)])
    assert found.real is not None
    assert (found.real.num_images, found.num_left_out, len(found.real.pairs)) == (6, 8, 3)


def test_an_image_whose_label_changed_is_left_out() -> None:
    found = compare_models([model("one", "aaaa"), model("other", "aaaa", true="b")])
    assert found.real is None
    assert found.num_left_out == 4
    assert [one.code for one in found.warnings] == ["no_common_images"]


def test_generated_images_are_resampled_by_group_and_warned_about() -> None:
    groups = [f"prompt {index // 10}" for index in range(100)]
    models = [
        model("one", "a" * 80 + "b" * 20, source="synthetic", groups=groups),
        model("other", "b" * 20 + "a" * 80, source="synthetic", groups=groups),
    ]
    found = compare_models(models)
    assert found.synthetic is not None
    assert found.synthetic.pairs[0].num_groups == 10
    assert found.synthetic.pairs[0].verdict == "not_distinguishable"
    assert [one.code for one in found.warnings] == ["synthetic_test_only"]
