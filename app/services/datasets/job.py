"""The `dataset` job: every image of a dataset, made in chunks in the worker process.

An image is fixed by its place and attempt and the dataset's recipe, so that a chunk that is made again after a crash
writes the same files again. It is judged before it is written: what the filter rejects never lies in the folder that
`ImageFolder` reads.
"""

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, func, or_, select, tuple_
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Dataset, Image
from app.db.session import Database
from app.errors import AppError, InferenceFailed
from app.image_spec import ImageInfo
from app.jobs.handler import JobCancelled, Json
from app.jobs.record import advance
from app.jobs.run import JobRun
from app.node.client import NodeClient
from app.schemas.datasets import MAX_MISSING_TOLD
from app.services.datasets.places import in_place
from app.services.datasets.recipe import Drawn, Made, Place, Recipe, Tried, Verdict
from app.services.datasets.records import kept_images, num_to_make
from app.services.datasets.service import find_dataset
from app.services.generations.records import image_columns
from app.services.jobs.kinds import DatasetKind
from app.services.jobs.waiting import STORAGE_PATIENCE_S, patience, store
from app.services.store.recovery import clear_for, set_unrecorded_aside, tell_moved
from app.storage.layout import DataFolder


@dataclass(slots=True)
class _Tries:
    """What became of the tries at one place: rows of the images written, and how many tries ended how."""

    place: Place
    rows: list[dict[str, Any]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def is_missing(self) -> bool:
        return not self.outcomes["kept"]


class DatasetImages:
    """Makes the images of a dataset inside a job; shared by `dataset` and `train` jobs."""

    def __init__(
        self,
        db: Database,
        folder: DataFolder,
        node: NodeClient,
        *,
        chunk_size: int,
        storage_patience_s: float = STORAGE_PATIENCE_S,
    ) -> None:
        """Wire it.

        Args:
            db: Where the records are.
            folder: Where the files go.
            node: Who renders.
            chunk_size: Images that are rendered together and recorded in one transaction, >= 1.
            storage_patience_s: How long storage that is full or away is waited for, in seconds, >= 0.
        """
        self._db = db
        self._folder = folder
        self._node = node
        self._chunk_size = chunk_size
        self._storage_patience_s = storage_patience_s

    def make(self, job: JobRun, dataset_id: str) -> dict[str, Json]:
        """Make what the dataset lacks and set its status: `ready`, or `incomplete` if images are missing.

        A job that extends a dataset says in its spec what is `made`, and begins behind that; one that completes a
        dataset says what was `tried`.
        """
        made, tried = Made(**job.spec.get("made", {})), job.spec.get("tried") or {}
        total: Any = job.transaction("begin-dataset", lambda session: self._begin(session, dataset_id, made))
        starts = range(0, total, self._chunk_size)
        stops = [min(start + self._chunk_size, total) for start in starts]
        common = {"part": "images", "dataset_id": dataset_id, "made": asdict(made), "tried": tried}
        ended = job.chunks(
            [{**common, "start": start, "stop": stop} for start, stop in zip(starts, stops, strict=True)]
        )
        missing = _missing(ended)
        num: Any = job.transaction("end-dataset", lambda session: _end(session, dataset_id, made, missing))
        return {"dataset_id": dataset_id, "num_images": num, "num_missing": total - num}

    def make_chunk(self, job: JobRun, item: dict[str, Any]) -> Json:
        """Render the images at the places `start` <= place < `stop`, then record them at once.

        A place that has its image, from the job that this one retries, is left as it is.
        """
        with self._db.snapshot() as session:
            dataset = find_dataset(session, item["dataset_id"], with_texts=True)
            # Chunks of older releases have neither of the two.
            made, tried = Made(**item.get("made", {})), Tried(**item.get("tried", {}))
            recipe = Recipe(dataset)
            numbers = range(item["start"], item["stop"])
            places = _empty(session, dataset, [recipe.place(number, made) for number in numbers])
        # No step: a chunk that dies before its record is made again, and gives the same files.
        try:
            tries = self._fill(job, dataset, recipe, places, tried)
            paths = {path for place in places for path in self._paths(dataset, recipe, place, tried)}
            self._record(job, dataset, tries, paths, item["stop"] - item["start"])
        except (JobCancelled, AppError):
            self._discard(job, dataset, recipe, places, tried)
            raise
        missing = [_missing_place(dataset, entry) for entry in tries if entry.is_missing]
        return {"made": len(tries) - len(missing), "missing": missing}

    def tidy(self, dataset_id: str) -> None:
        """Set aside what chunks that failed or died have written and nobody will record; while none of them runs."""
        tell_moved(set_unrecorded_aside(self._db, self._folder, dataset_id))

    def _begin(self, session: Session, dataset_id: str, made: Made) -> Json:
        dataset = find_dataset(session, dataset_id)
        dataset.status = "generating"
        clear_for(session, self._folder, dataset)
        return num_to_make(dataset, made)

    def _record(self, job: JobRun, dataset: Dataset, tries: list[_Tries], paths: set[str], num_places: int) -> None:
        def record(session: Session) -> Json:
            # What an earlier job tried here in vain, by these same attempts, was tried again under the same names.
            session.execute(delete(Image).where(Image.path.in_(paths)))
            session.add_all(Image(**row, dataset_id=dataset.id) for entry in tries for row in entry.rows)
            advance(session, job.id, num_places)
            return None

        job.transaction("record", record)

    def _discard(self, job: JobRun, dataset: Dataset, recipe: Recipe, places: list[Place], tried: Tried) -> None:
        """Remove what a chunk that ends here has written and will not record."""
        job.check_held()  # else another worker may be writing the same files
        paths = {path for place in places for path in self._paths(dataset, recipe, place, tried)}
        with self._db.snapshot() as session:
            paths -= set(session.scalars(select(Image.path).where(Image.path.in_(paths))))
        for path in paths:
            self._folder.delete(path)

    def _fill(self, job: JobRun, dataset: Dataset, recipe: Recipe, places: list[Place], tried: Tried) -> list[_Tries]:
        with ThreadPoolExecutor(max(1, len(places))) as pool:
            return list(pool.map(lambda place: self._fill_place(job, dataset, recipe, place, tried), places))

    def _fill_place(self, job: JobRun, dataset: Dataset, recipe: Recipe, place: Place, tried: Tried) -> _Tries:
        """Try until an image is kept or the attempts run out; write each image that may be looked at."""
        tries = _Tries(place)
        for attempt in _attempts(recipe, place, tried):
            drawn = recipe.draw(place, attempt)
            try:
                data, info = self._node.render(
                    drawn.spec, labels=recipe.texts, background=True, keep_waiting=patience(job)
                )
            except InferenceFailed:
                tries.outcomes["failed"] += 1
                continue
            if info.flagged:
                tries.outcomes["flagged"] += 1
                continue
            scores = info.label_probabilities
            probabilities = [score["probability"] for score in scores] if scores else None
            verdict = recipe.judge(place, probabilities)
            info = replace(info, label_probabilities=recipe.scores(place, probabilities) if probabilities else None)
            path = self._path(dataset, recipe, place, attempt, is_kept=verdict.decision == "kept")
            store(job, self._folder, path, data, patience_s=self._storage_patience_s)
            tries.outcomes[verdict.decision] += 1
            tries.rows.append(_row(place, path, drawn, info, verdict))
            if verdict.decision == "kept":
                break
        self._remove_leftovers(dataset, recipe, tries, tried)
        return tries

    def _remove_leftovers(self, dataset: Dataset, recipe: Recipe, tries: _Tries, tried: Tried) -> None:
        """Remove what an earlier run of this chunk wrote and this one did not.

        There is nothing unless a score lies so near the threshold that its last bits, which differ between batches of
        CLIP, decided otherwise.
        """
        for path in self._paths(dataset, recipe, tries.place, tried) - {row["path"] for row in tries.rows}:
            self._folder.delete(path)

    def _paths(self, dataset: Dataset, recipe: Recipe, place: Place, tried: Tried) -> set[str]:
        """Return every path that an attempt of this job at a place may write."""
        return {
            self._path(dataset, recipe, place, attempt, is_kept=is_kept)
            for attempt in _attempts(recipe, place, tried)
            for is_kept in (True, False)
        }

    def _path(self, dataset: Dataset, recipe: Recipe, place: Place, attempt: int, *, is_kept: bool) -> str:
        return self._folder.dataset_image_path(
            dataset.name,
            place.split,
            dataset.classes[place.class_index]["folder"],
            place.position,
            dataset.generation["output_format"],
            seed=recipe.seed(place, attempt),
            is_kept=is_kept,
        )


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

    def tidy(self, job: JobRun) -> None:
        """Set unrecorded images aside."""
        self._images.tidy(job.spec["dataset_id"])


def _attempts(recipe: Recipe, place: Place, tried: Tried) -> range:
    """Return the numbers of the attempts that a job has at a place."""
    first = tried.first_attempt(place)
    return range(first, first + recipe.max_attempts)


def _at(dataset: Dataset, places: list[Place]) -> ColumnElement[bool]:
    """Match the images at these places of a dataset."""
    place = tuple_(Image.split, Image.class_index, Image.position)
    return (Image.dataset_id == dataset.id) & place.in_([(p.split, p.class_index, p.position) for p in places])


def _empty(session: Session, dataset: Dataset, places: list[Place]) -> list[Place]:
    """Return those of the places that have no image yet."""
    kept = kept_images(dataset.id).where(_at(dataset, places))
    full = {(image.split, image.class_index, image.position) for image in session.scalars(kept)}
    return [place for place in places if (place.split, place.class_index, place.position) not in full]


def _end(session: Session, dataset_id: str, made: Made, missing: list[Any]) -> Json:
    """Settle the dataset's status from all of its places; return how many images there are behind what was made."""
    dataset = find_dataset(session, dataset_id)
    filled = kept_images(dataset_id).where(in_place(dataset))
    behind = or_(*((Image.split == split) & (Image.position >= first) for split, first in asdict(made).items()))
    num_all, num = (_count(session, query) for query in (filled, filled.where(behind)))
    dataset.status = "ready" if num_all == num_to_make(dataset) else "incomplete"
    before = [place for place in dataset.missing or [] if place["position"] < getattr(made, place["split"])]
    dataset.missing = [*before, *missing][:MAX_MISSING_TOLD]
    return num


def _count(session: Session, query: Select[Any]) -> int:
    return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def _row(place: Place, path: str, drawn: Drawn, info: ImageInfo, verdict: Verdict) -> dict[str, Any]:
    """Return the columns of an image's row but for its dataset; the record tells what was drawn for it."""
    columns = image_columns(info)
    columns["lineage"] = {**columns["lineage"], **drawn.lineage}
    return {**asdict(place), **asdict(verdict), **columns, "id": new_id(), "path": path}


def _missing_place(dataset: Dataset, tries: _Tries) -> dict[str, Json]:
    place, outcomes = tries.place, tries.outcomes
    named = {"class_name": dataset.classes[place.class_index]["name"], "split": place.split, "position": place.position}
    return {**named, **{f"num_{outcome}": outcomes[outcome] for outcome in ("rejected", "flagged", "failed")}}


def _missing(ended: Iterable[Json]) -> list[Any]:
    """Collect the first empty places that chunks told of; chunks of an older revision told a number alone."""
    told = [place for chunk in ended if isinstance(chunk, dict) for place in chunk["missing"]]
    return told[:MAX_MISSING_TOLD]


def _dict(item: Json) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise TypeError("a chunk is a JSON object")
    return item
