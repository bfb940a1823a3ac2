"""The JSON of dataset and repair jobs: what this release writes, and what older releases have written."""

import pytest

from app.jobs.signals import Json
from app.services.datasets.payloads import (
    DatasetWork,
    FilesChunkResult,
    ImagesChunk,
    ImagesChunkResult,
    MissingImage,
    RepairResult,
    Restoration,
)
from app.services.datasets.recipes.recipe import Offsets, PriorAttempts
from app.services.images.lost_files import LostImage

MISSING = MissingImage(class_name="fox", split="train", position=3, num_rejected=2, num_flagged=0, num_failed=1)
LOST = LostImage("1", "images/1.png", "image_file_missing")


@pytest.mark.parametrize(
    ("spec", "work"),
    [
        ({"dataset_id": "d", "seed": 7}, DatasetWork("d")),
        ({"dataset_id": "d", "made": {"train": 5, "test": 1}}, DatasetWork("d", Offsets(5, 1))),
        ({"dataset_id": "d", "made": {}, "tried": None}, DatasetWork("d")),
        ({"dataset_id": "d", "made": {}, "tried": {"train": 5, "test": 1, "attempts": 3}},
         DatasetWork("d", tried=PriorAttempts(5, 1, 3))),
        ({"dataset_id": "d", "made": {"train": 5, "test": 1, "validation": 2}}, DatasetWork("d", Offsets(5, 1, 2))),
    ],
)  # fmt: skip
def test_specs_of_every_release_are_read(spec: dict[str, Json], work: DatasetWork) -> None:
    assert DatasetWork.from_json(spec) == work
    assert DatasetWork.from_json(work.to_json()) == work


def test_a_chunk_item_is_read_as_it_was_written() -> None:
    chunk = ImagesChunk("d", 8, 12, Offsets(5, 1), PriorAttempts(5, 1, 3))
    assert ImagesChunk.from_json(chunk.to_json()) == chunk
    assert list(chunk.to_json()) == ["part", "dataset_id", "made", "tried", "start", "stop"]


def test_what_an_older_release_cannot_read_is_written_only_where_it_counts() -> None:
    """Its offsets and attempts have no `validation`; a worker of it may run the jobs of datasets without that split."""
    assert ImagesChunk("d", 0, 4, Offsets(5, 1), PriorAttempts(5, 1, 3)).to_json()["made"] == {"train": 5, "test": 1}
    work = DatasetWork("d", Offsets(5, 1, 2), PriorAttempts(5, 1, 3, 2))
    assert work.to_json()["made"] == {"train": 5, "test": 1, "validation": 2}
    assert DatasetWork.from_json(work.to_json()) == work


def test_a_chunk_item_of_an_older_release_begins_at_the_first_place_and_attempt() -> None:
    item = {"part": "images", "dataset_id": "d", "start": 0, "stop": 4}
    assert ImagesChunk.from_json(item) == ImagesChunk("d", 0, 4)


def test_a_chunk_result_of_an_older_release_is_a_number() -> None:
    assert ImagesChunkResult.from_json(4) == ImagesChunkResult(4)
    result = ImagesChunkResult(3, [MISSING])
    assert ImagesChunkResult.from_json(result.to_json()) == result


def test_a_repair_sorts_restored_redrawn_and_unrestored_images() -> None:
    chunk = FilesChunkResult.of([Restoration(), Restoration(LOST, "2"), Restoration(LOST)])
    assert FilesChunkResult.from_json(chunk.to_json()) == chunk
    assert (chunk.num_restored, chunk.redrawn) == (1, [{**LOST.to_json(), "new_image_id": "2"}])
    result = RepairResult.of("d", 6, [chunk, chunk], max_named=1)
    assert (result.num_restored, result.num_redrawn, result.num_unrestored) == (2, 2, 2)
    assert result.unrestored == [LOST.to_json()]
