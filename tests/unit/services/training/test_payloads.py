"""The JSON of train jobs: what this release writes, and what older releases have written."""

from app.services.images.lost_files import LostImage
from app.services.training.payloads import Backbone, FeaturesChunk, FeaturesChunkResult, TrainSpec

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
}


def test_a_spec_is_written_as_the_api_shows_it() -> None:
    spec = TrainSpec.from_json(SPEC)
    assert spec.to_json() == SPEC
    assert list(spec.to_json()) == list(SPEC)
    assert not spec.makes_dataset


def test_a_spec_of_an_older_release_allows_no_incomplete_dataset() -> None:
    older = {name: value for name, value in SPEC.items() if name != "allow_incomplete"}
    assert TrainSpec.from_json(older).allow_incomplete is False


def test_a_retry_of_a_spec_may_have_further_members() -> None:
    retried = {**SPEC, "dataset": {"name": "d"}, "made": {}, "tried": {"train": 1, "test": 0, "attempts": 3}}
    assert TrainSpec.from_json(retried).makes_dataset


def test_a_chunk_item_keeps_every_fact_of_the_backbone() -> None:
    facts = {"architecture": "resnet18", "weights_sha256": "ab", "preprocessing": "p"}
    chunk = FeaturesChunk("d", 64, Backbone(facts))
    assert chunk.to_json() == {"part": "features", "dataset_id": "d", "start": 64, "backbone": facts}
    assert FeaturesChunk.from_json(chunk.to_json()) == chunk


def test_a_chunk_of_an_older_release_returned_nothing() -> None:
    assert FeaturesChunkResult.from_json(None) == FeaturesChunkResult()
    result = FeaturesChunkResult(30, [LostImage("1", "images/1.png", "image_file_missing")])
    assert FeaturesChunkResult.from_json(result.to_json()) == result
