"""When a model can be evaluated on a dataset, and what is known of its training images."""

import pytest

from app.db.models import Dataset, TrainedModel
from app.errors import Conflict, Invalid
from app.services.evaluation.stored import metrics_columns
from app.services.evaluation.subject import EvaluatedImage, majority_of_training, match_classes, refuse_other_backbone
from testing.trained_models import OLD_TABLES, evaluated

CROP = {"library": "timm", "crop": 224}


def dataset(*names: str) -> Dataset:
    return Dataset(classes=[{"name": name} for name in names])


def model(preprocessing: object) -> TrainedModel:
    return TrainedModel(
        backbone="photo", backbone_sha256="a" * 64, lineage={"backbone": {"preprocessing": preprocessing}}
    )


def found(preprocessing: object, sha256: str = "a" * 64) -> dict[str, object]:
    return {"weights_sha256": sha256, "preprocessing": preprocessing}


def test_identical_names_come_before_equal_ones() -> None:
    # Records from before the rule may have two names that are equal by it.
    assert match_classes(dataset("FOX", "dog"), ["fox", "FOX", "Dog "]) == [1, 2]


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(Invalid, match=r"1 of the dataset's 2 classes are unknown to the model: “cat”\.") as refused:
        match_classes(dataset("fox", "cat"), ["fox", "dog"])
    assert refused.value.code == "classes_unknown"


def test_the_node_needs_weights_and_preprocessing_of_the_training() -> None:
    refuse_other_backbone(model(CROP), found(CROP))
    refuse_other_backbone(model("resize 256, crop 224"), found(CROP))  # of a release before 0.3
    for other, fault in ((None, "not on this node"), (found(CROP, "b" * 64), "other weights"), (found({}), "another")):
        with pytest.raises(Conflict, match=fault):
            refuse_other_backbone(model(CROP), other)


def test_parts_of_a_combined_backbone_may_be_computed_by_another_device() -> None:
    def parts(device: str, preprocessing: dict[str, object]) -> dict[str, object]:
        return {"parts": [{"name": "photo", "device": device, "preprocessing": preprocessing}]}

    refuse_other_backbone(model(parts("cuda", CROP)), found(parts("cpu", CROP)))
    with pytest.raises(Conflict, match="another way"):
        refuse_other_backbone(model(parts("cpu", CROP)), found(parts("cpu", {})))


def test_the_majority_class_follows_from_the_metrics_of_training() -> None:
    images = [
        EvaluatedImage(str(row), source, index, None)
        for row, (source, index) in enumerate(
            [("real", 0), ("synthetic", 1), ("synthetic", 1), ("real", 0), ("real", 1)]
        )
    ]
    metrics, _ = evaluated(images, [0] * 5, ["fox", "dog"])
    assert majority_of_training(metrics_columns(metrics)[1]) == 1
    assert majority_of_training(OLD_TABLES) == 1
    assert majority_of_training({}) is None
    assert majority_of_training({"train": {"real": None, "synthetic": None, "unseparated": None}}) is None
