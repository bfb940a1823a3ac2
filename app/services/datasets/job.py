"""The `dataset` job: generates every image of a dataset, in chunks.

The dataset's recipe, the slot and the attempt determine an image, so a chunk that is repeated after a crash writes the
same files again. The filter decides before the file is written: a rejected image is never in the folder that
`ImageFolder` reads. Imports no model: the node's engine renders. Runs in the worker process, on the threads of the job.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, tuple_
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset, Image
from app.db.session import Database
from app.errors import AppError, InferenceFailed
from app.image_spec import ImageInfo
from app.jobs.handler import JobContext
from app.jobs.record import advance
from app.jobs.signals import JobCancelled, Json
from app.logs.context import carried
from app.node.client import NodeClient
from app.schemas.datasets import MAX_MISSING_TOLD
from app.services.datasets.payloads import DatasetResult, DatasetWork, ImagesChunk, ImagesChunkResult, MissingImage
from app.services.datasets.recipes.clip_filter import Verdict
from app.services.datasets.recipes.recipe import PriorAttempts, Recipe, SampledSpec, Slot
from app.services.datasets.recipes.shots.records import shot_files
from app.services.datasets.records import kept_images, num_to_make
from app.services.datasets.rows import find_dataset
from app.services.datasets.slots import in_slot
from app.services.generations.records import image_columns
from app.services.jobs.kinds import DatasetKind
from app.services.jobs.wait_policy import STORAGE_WAIT_S, store, wait_policy
from app.services.store.recovery import clear_dataset_folders, log_moved, move_unrecorded
from app.storage.layout import DataFolder


@dataclass(slots=True)
class _Tries:
    """The attempts at one slot: the rows of the written images, and the number of attempts with each outcome."""

    slot: Slot
    rows: list[dict[str, Any]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def is_missing(self) -> bool:
        return not self.outcomes["kept"]


class DatasetImages:
    """Generates the images of a dataset inside a job; shared by `dataset` and `train` jobs."""

    def __init__(
        self,
        db: Database,
        folder: DataFolder,
        node: NodeClient,
        *,
        chunk_size: int,
        storage_wait_s: float = STORAGE_WAIT_S,
    ) -> None:
        """Use these services.

        Args:
            db: The database of the records.
            folder: The data folder.
            node: The engine that renders.
            chunk_size: Number of images that are rendered concurrently and recorded in one transaction, >= 1.
            storage_wait_s: How long storage may be full or unavailable before the job fails, in seconds, >= 0.
        """
        self._db = db
        self._folder = folder
        self._node = node
        self._chunk_size = chunk_size
        self._storage_wait_s = storage_wait_s

    def make(self, job: JobContext) -> DatasetResult:
        """Generate the missing images of a job's dataset, and set its status: `ready`, or `incomplete`.

        A job that extends a dataset begins behind the offsets `made`; one that completes a dataset continues after the
        attempts that were `tried`.
        """
        work = DatasetWork.from_json(job.spec)
        total: int = job.transaction("begin-dataset", lambda session: self._begin(session, work))
        chunks = [
            ImagesChunk(work.dataset_id, start, min(start + self._chunk_size, total), work.made, work.tried)
            for start in range(0, total, self._chunk_size)
        ]
        ended = [ImagesChunkResult.from_json(result) for result in job.chunks([chunk.to_json() for chunk in chunks])]
        missing = [image for chunk in ended for image in chunk.missing][:MAX_MISSING_TOLD]
        num: int = job.transaction("end-dataset", lambda session: _end(session, work, missing))
        return DatasetResult(work.dataset_id, num_images=num, num_missing=total - num)

    def make_chunk(self, job: JobContext, chunk: ImagesChunk) -> ImagesChunkResult:
        """Render the images of a chunk's slots, then record them in one transaction.

        A slot that the job which this one retries has filled is left unchanged.
        """
        with self._db.snapshot() as session:
            dataset = find_dataset(session, chunk.dataset_id, with_texts=True)
            recipe, tried = Recipe(dataset), chunk.tried
            numbers = range(chunk.start, chunk.stop)
            slots = _empty(session, dataset, [recipe.slot(number, chunk.made) for number in numbers])
        # Not a step: a chunk that crashes before its record is repeated, with the same files.
        try:
            tries = self._fill(job, dataset, recipe, slots, tried)
            paths = {path for slot in slots for path in self._paths(dataset, recipe, slot, tried)}
            self._record(job, dataset, tries, paths, chunk.stop - chunk.start)
        except (JobCancelled, AppError):
            self._discard(job, dataset, recipe, slots, tried)
            raise
        missing = [_missing_image(dataset, entry) for entry in tries if entry.is_missing]
        return ImagesChunkResult(len(tries) - len(missing), missing)

    def cleanup(self, dataset_id: str) -> None:
        """Move unrecorded files of failed or crashed chunks to `.lost+found`; called while no chunk runs."""
        log_moved(move_unrecorded(self._db, self._folder, dataset_id))

    def _begin(self, session: Session, work: DatasetWork) -> int:
        dataset = find_dataset(session, work.dataset_id)
        dataset.status = "generating"
        clear_dataset_folders(session, self._folder, dataset)
        return num_to_make(dataset, work.made)

    def _record(self, job: JobContext, dataset: Dataset, tries: list[_Tries], paths: set[str], num_slots: int) -> None:
        def record(session: Session) -> Json:
            # Rows of an earlier job's rejected images: this job repeated the same attempts, under the same names.
            session.execute(delete(Image).where(Image.path.in_(paths)))
            session.add_all(Image(**row, dataset_id=dataset.id) for entry in tries for row in entry.rows)
            advance(session, job.id, num_slots)
            return None

        job.transaction("record", record)

    def _discard(
        self, job: JobContext, dataset: Dataset, recipe: Recipe, slots: list[Slot], tried: PriorAttempts
    ) -> None:
        """Delete the files of a chunk that ends before its record."""
        job.check_held()  # otherwise another worker may be writing the same files
        paths = {path for slot in slots for path in self._paths(dataset, recipe, slot, tried)}
        with self._db.snapshot() as session:
            paths -= set(session.scalars(select(Image.path).where(Image.path.in_(paths))))
        for path in paths:
            self._folder.delete(path)

    def _fill(
        self, job: JobContext, dataset: Dataset, recipe: Recipe, slots: list[Slot], tried: PriorAttempts
    ) -> list[_Tries]:
        with ThreadPoolExecutor(max(1, len(slots))) as pool:
            return list(pool.map(carried(partial(self._fill_slot, job, dataset, recipe, tried=tried)), slots))

    def _fill_slot(self, job: JobContext, dataset: Dataset, recipe: Recipe, slot: Slot, tried: PriorAttempts) -> _Tries:
        """Attempt until an image is kept or no attempt is left; write each image that is not flagged."""
        tries = _Tries(slot)
        for attempt in _attempts(recipe, slot, tried):
            drawn = recipe.draw(slot, attempt)
            try:
                data, info = self._node.render(
                    drawn.spec,
                    labels=recipe.filter.texts,
                    background=True,
                    keep_waiting=wait_policy(job),
                    caller=job.caller,
                    pictures=shot_files(self._db, dataset.id, drawn.spec),
                )
            except InferenceFailed:
                tries.outcomes["failed"] += 1
                continue
            if info.flagged:
                tries.outcomes["flagged"] += 1
                continue
            scores = info.label_probabilities
            probabilities = [score["probability"] for score in scores] if scores else None
            verdict = recipe.filter.apply(slot.class_index, probabilities)
            recorded = recipe.filter.scores(slot.class_index, probabilities) if probabilities else None
            info = replace(info, label_probabilities=recorded)
            path = self._path(dataset, recipe, slot, attempt, is_kept=verdict.decision == "kept")
            store(job, self._folder, path, data, max_wait_s=self._storage_wait_s)
            tries.outcomes[verdict.decision] += 1
            tries.rows.append(_row(slot, path, drawn, info, verdict))
            if verdict.decision == "kept":
                break
        self._remove_stale(dataset, recipe, tries, tried)
        return tries

    def _remove_stale(self, dataset: Dataset, recipe: Recipe, tries: _Tries, tried: PriorAttempts) -> None:
        """Delete the files that an earlier run of this chunk wrote and this one did not.

        Such files exist only if a score is so near the threshold that its last bits decide: they differ between CLIP's
        batches.
        """
        for path in self._paths(dataset, recipe, tries.slot, tried) - {row["path"] for row in tries.rows}:
            self._folder.delete(path)

    def _paths(self, dataset: Dataset, recipe: Recipe, slot: Slot, tried: PriorAttempts) -> set[str]:
        """Return every path that this job's attempts at a slot may write."""
        return {
            self._path(dataset, recipe, slot, attempt, is_kept=is_kept)
            for attempt in _attempts(recipe, slot, tried)
            for is_kept in (True, False)
        }

    def _path(self, dataset: Dataset, recipe: Recipe, slot: Slot, attempt: int, *, is_kept: bool) -> str:
        return self._folder.dataset_image_path(
            dataset.name,
            slot.split,
            dataset.classes[slot.class_index]["folder"],
            slot.position,
            dataset.generation["output_format"],
            seed=recipe.seed(slot, attempt),
            is_kept=is_kept,
        )


class DatasetJob(DatasetKind):
    """Handler of `dataset` jobs."""

    def __init__(self, images: DatasetImages) -> None:
        """Use `images`, which `train` jobs share."""
        self._images = images

    def run(self, job: JobContext) -> dict[str, Json]:
        """Generate every image of the dataset."""
        return self._images.make(job).to_json()

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Generate the images of one chunk."""
        return self._images.make_chunk(job, ImagesChunk.from_json(item)).to_json()

    def cleanup(self, job: JobContext) -> None:
        """Move unrecorded images to `.lost+found`."""
        self._images.cleanup(DatasetWork.from_json(job.spec).dataset_id)


def _attempts(recipe: Recipe, slot: Slot, tried: PriorAttempts) -> range:
    """Return the numbers of this job's attempts at a slot."""
    first = tried.first_attempt(slot)
    return range(first, first + recipe.max_attempts)


def _at(dataset: Dataset, slots: list[Slot]) -> ColumnElement[bool]:
    """Match the images in these slots of a dataset."""
    slot = tuple_(Image.split, Image.class_index, Image.position)
    return (Image.dataset_id == dataset.id) & slot.in_([(p.split, p.class_index, p.position) for p in slots])


def _empty(session: Session, dataset: Dataset, slots: list[Slot]) -> list[Slot]:
    """Return the slots without an image."""
    kept = kept_images(dataset.id).where(_at(dataset, slots))
    full = {(image.split, image.class_index, image.position) for image in session.scalars(kept)}
    return [slot for slot in slots if (slot.split, slot.class_index, slot.position) not in full]


def _end(session: Session, work: DatasetWork, missing: list[MissingImage]) -> int:
    """Set the dataset's status from all of its slots; return the number of images behind the offsets."""
    dataset, made = find_dataset(session, work.dataset_id), work.made
    filled = kept_images(dataset.id).where(in_slot(dataset))
    behind = or_(*((Image.split == split) & (Image.position >= first) for split, first in asdict(made).items()))
    num_all, num = (_count(session, query) for query in (filled, filled.where(behind)))
    dataset.status = "ready" if num_all == num_to_make(dataset) else "incomplete"
    before = [slot for slot in dataset.missing or [] if slot["position"] < getattr(made, slot["split"])]
    dataset.missing = [*before, *missing][:MAX_MISSING_TOLD]
    return num


def _count(session: Session, query: Select[Any]) -> int:
    return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def _row(slot: Slot, path: str, drawn: SampledSpec, info: ImageInfo, verdict: Verdict) -> dict[str, Any]:
    """Return the columns of an image's row without its dataset; the lineage has what the recipe sampled."""
    columns = image_columns(info)
    columns["lineage"] = {**columns["lineage"], **drawn.lineage}
    return {**asdict(slot), **asdict(verdict), **columns, "id": new_id(), "path": path}


def _missing_image(dataset: Dataset, tries: _Tries) -> MissingImage:
    slot, outcomes = tries.slot, tries.outcomes
    return MissingImage(
        class_name=dataset.classes[slot.class_index]["name"],
        split=slot.split,
        position=slot.position,
        num_rejected=outcomes["rejected"],
        num_flagged=outcomes["flagged"],
        num_failed=outcomes["failed"],
    )
