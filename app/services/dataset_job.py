"""The `dataset` job: every image of a dataset, made in chunks in the worker process.

An image is fixed by its place (class, split, position) and the dataset's seed, so that a chunk that is
made again after a crash writes the same files again.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset, Image
from app.db.session import Database
from app.errors import InferenceFailed
from app.jobs.handler import JobCancelled, Json
from app.jobs.record import advance
from app.jobs.run import JobRun
from app.node.client import NodeClient
from app.services.datasets import find_dataset, num_images
from app.services.generation_records import image_columns
from app.services.image_specs import ImageSpec
from app.services.job_kinds import DatasetKind
from app.services.patience import patience
from app.services.seeds import image_seed
from app.storage.layout import DataFolder

# A flagged or failed image is tried again under the seed of its next attempt, at most so often.
MAX_ATTEMPTS = 3


class DatasetImages:
    """Makes the images of a dataset inside a job; shared by `dataset` and `train` jobs."""

    def __init__(self, db: Database, folder: DataFolder, node: NodeClient, *, chunk_size: int) -> None:
        """Wire it; a chunk is `chunk_size` images, rendered together and recorded in one transaction."""
        self._db = db
        self._folder = folder
        self._node = node
        self._chunk_size = chunk_size

    def make(self, job: JobRun, dataset_id: str) -> dict[str, Json]:
        """Make what the dataset lacks and set its status: `ready`, or `incomplete` if images are missing."""
        total: Any = job.transaction("begin-dataset", lambda session: _begin(session, dataset_id))
        starts = range(0, total, self._chunk_size)
        stops = [min(start + self._chunk_size, total) for start in starts]
        common = {"part": "images", "dataset_id": dataset_id}
        job.chunks([{**common, "start": start, "stop": stop} for start, stop in zip(starts, stops, strict=True)])
        made: Any = job.transaction("end-dataset", lambda session: _end(session, dataset_id))
        return {"dataset_id": dataset_id, "num_images": made, "num_missing": total - made}

    def make_chunk(self, job: JobRun, item: dict[str, Any]) -> Json:
        """Render the images at the places `start` <= place < `stop`, then record them at once."""
        with self._db.snapshot() as session:
            dataset = find_dataset(session, item["dataset_id"])
        # No step: a chunk that dies before its record is made again, and gives the same files.
        try:
            made = self._render(job, dataset, item["start"], item["stop"])
            self._record(job, dataset, made, item["stop"] - item["start"])
        except JobCancelled:
            self._discard(dataset, item["start"], item["stop"])
            raise
        return len(made)

    def _record(self, job: JobRun, dataset: Dataset, made: list[dict[str, Any]], num_places: int) -> None:
        def record(session: Session) -> Json:
            for entry in made:
                info = entry["info"]
                place = {name: entry[name] for name in ("id", "path", "split", "class_index", "position")}
                session.add(Image(**place, dataset_id=dataset.id, **image_columns(info)))
            advance(session, job.id, num_places)
            return None

        job.transaction("record", record)

    def _discard(self, dataset: Dataset, start: int, stop: int) -> None:
        """Remove what a cancelled chunk has written and will not record."""
        places = [(place, attempt) for place in range(start, stop) for attempt in range(MAX_ATTEMPTS)]
        paths = {self._path(dataset, place, attempt) for place, attempt in places}
        with self._db.snapshot() as session:
            paths -= set(session.scalars(select(Image.path).where(Image.path.in_(paths))))
        for path in paths:
            self._folder.delete(path)

    def _render(self, job: JobRun, dataset: Dataset, start: int, stop: int) -> list[dict[str, Any]]:
        with ThreadPoolExecutor(stop - start) as pool:
            entries = pool.map(lambda place: self._render_one(job, dataset, place), range(start, stop))
            return [entry for entry in entries if entry is not None]

    def _render_one(self, job: JobRun, dataset: Dataset, place: int) -> dict[str, Any] | None:
        split, class_index, position = _slot(dataset, place)
        entry = dataset.classes[class_index]
        for attempt in range(MAX_ATTEMPTS):
            spec = ImageSpec(
                prompt=entry["prompts"][position % len(entry["prompts"])],
                negative_prompt=entry["negative_prompt"],
                seed=image_seed(dataset.seed, entry["name"], split, position, attempt),
                **dataset.generation,
            )
            try:
                data, info = self._node.render(spec.to_json(), labels=None, background=True, keep_waiting=patience(job))
            except InferenceFailed:
                continue
            if not info["flagged"]:
                path = self._path(dataset, place, attempt)
                self._folder.write(path, data)
                named = {"split": split, "class_index": class_index, "position": position}
                return {**named, "id": new_id(), "path": path, "info": info}
        return None

    def _path(self, dataset: Dataset, place: int, attempt: int) -> str:
        split, class_index, position = _slot(dataset, place)
        entry = dataset.classes[class_index]
        seed = image_seed(dataset.seed, entry["name"], split, position, attempt)
        image_format = dataset.generation["output_format"]
        return self._folder.dataset_image_path(dataset.name, split, entry["folder"], position, image_format, seed=seed)


class DatasetJob(DatasetKind):
    """Handler of `dataset` jobs."""

    def __init__(self, images: DatasetImages) -> None:
        """Wire the handler."""
        self._images = images

    def run(self, job: JobRun) -> dict[str, Json]:
        """Make every image of the dataset."""
        return self._images.make(job, job.spec["dataset_id"])

    def run_chunk(self, job: JobRun, item: Json) -> Json:
        """Make the images of one chunk."""
        return self._images.make_chunk(job, _dict(item))


def _begin(session: Session, dataset_id: str) -> Json:
    dataset = find_dataset(session, dataset_id)
    dataset.status = "generating"
    return num_images(dataset)


def _end(session: Session, dataset_id: str) -> Json:
    dataset = find_dataset(session, dataset_id)
    made = session.scalar(select(func.count()).select_from(Image).where(Image.dataset_id == dataset_id)) or 0
    dataset.status = "ready" if made == num_images(dataset) else "incomplete"
    return made


def _slot(dataset: Dataset, place: int) -> tuple[str, int, int]:
    """Return (split, class index, position) of an image's place: all of train, then test, class by class."""
    num_train = len(dataset.classes) * dataset.train_per_class
    if place < num_train:
        return "train", place // dataset.train_per_class, place % dataset.train_per_class
    place -= num_train
    return "test", place // dataset.test_per_class, place % dataset.test_per_class


def _dict(item: Json) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise TypeError("a chunk is a JSON object")
    return item
