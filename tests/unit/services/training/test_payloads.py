"""The JSON of train jobs: what this release writes, and what older releases have written."""

from app.services.images.lost_files import LostImage
from app.services.training.payloads import (
    Backbone,
    FeaturesChunk,
    FeaturesChunkResult,
    FeaturesPlan,
    Stretch,
    TrainSpec,
)

FACTS = {"name": "photo", "architecture": "resnet18", "weights_sha256": "ab", "preprocessing": {"resize": 256}}

SPEC = {
    "dataset_id": "d",
    "name": "fox",
    "backbone": "resnet18",
    "method": "linear_probe",
    "epochs": 10,
    "batch_size": 16,
    "optimizer": {"name": "sgd", "lr": 0.001, "momentum": 0.9},
    "seed": 0,
    "allow_incomplete": True,
    "dataset": None,
    "backbone_sha256": "ab",
    "head": {"solver": "lbfgs", "c": 1.0},
    "validation": {"fraction": 0.2},
    "early_stopping": None,
    "augment": {"flip": True, "crops": 2},
    "preset": None,
    "fine_tune": None,
    "fine_tuning": None,
    "warnings": [{"code": "backbone_trained_on_drawings", "detail": "It was."}],
}


def test_a_spec_is_written_as_the_api_shows_it() -> None:
    spec = TrainSpec.from_json(SPEC)
    assert spec.to_json() == SPEC
    assert spec.views() == ["plain", "flip", "crop-0", "crop-1"]
    assert list(spec.to_json()) == list(SPEC)
    assert not spec.makes_dataset


def test_a_spec_of_an_older_release_allows_no_incomplete_dataset() -> None:
    older = {name: value for name, value in SPEC.items() if name not in ("allow_incomplete", "warnings")}
    assert TrainSpec.from_json(older).allow_incomplete is False
    assert TrainSpec.from_json(older).warnings == []


def test_a_retry_of_a_spec_may_have_further_members() -> None:
    retried = {**SPEC, "dataset": {"name": "d"}, "made": {}, "tried": {"train": 1, "test": 0, "attempts": 3}}
    assert TrainSpec.from_json(retried).makes_dataset


def test_a_chunk_item_keeps_every_fact_of_the_backbone() -> None:
    chunk = FeaturesChunk("d", 64, Backbone(FACTS), 7)
    expected = {"part": "features", "dataset_id": "d", "start": 64, "count": 7, "backbone": FACTS}
    assert chunk.to_json() == expected
    assert FeaturesChunk.from_json(chunk.to_json()) == chunk


def test_a_chunk_item_of_an_older_release_has_64_images_and_the_one_backbone_of_its_time() -> None:
    facts = {"architecture": "resnet18", "weights_sha256": "ab", "preprocessing": "Preprocessing(resize=128)"}
    chunk = FeaturesChunk.from_json({"part": "features", "dataset_id": "d", "start": 64, "backbone": facts})
    assert (chunk.count, chunk.backbone.name, chunk.backbone.weights_sha256) == (64, "resnet18", "ab")


def test_a_plan_gives_chunks_for_what_is_missing_alone() -> None:
    plan = FeaturesPlan(Backbone(FACTS), [Stretch(10, 20), Stretch(90, 10)])
    assert FeaturesPlan.from_json(plan.to_json()) == plan
    assert [(chunk.start, chunk.count) for chunk in plan.chunks("d", 100)] == [(10, 20), (90, 10)]
    assert plan.num_cached(100) == 70
    assert FeaturesPlan.from_json(FeaturesPlan(Backbone(FACTS), []).to_json()).chunks("d", 100) == []


def test_a_plan_of_an_older_release_reads_all_images() -> None:
    plan = FeaturesPlan.from_json(FACTS)
    assert [(chunk.start, chunk.count) for chunk in plan.chunks("d", 65)] == [(0, 64), (64, 64)]
    assert plan.num_cached(65) == 0


def test_a_chunk_of_an_older_release_returned_nothing() -> None:
    assert FeaturesChunkResult.from_json(None) == FeaturesChunkResult()
    result = FeaturesChunkResult(30, [LostImage("1", "images/1.png", "image_file_missing")])
    assert FeaturesChunkResult.from_json(result.to_json()) == result
