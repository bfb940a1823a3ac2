"""The `repair` job: every file of a dataset looked at, and lost ones drawn again; in the worker process.

A file that is damaged is kept in `.lost+found` before another takes its place. An image is drawn again from its own
record. The same models on the same kind of device give the same bytes; where they do not, the image is a new one, with
an id of its own, and the result says so. Uploaded images cannot be drawn: they are told, and left as they are.

Killed at any point, the work goes on: a chunk remembers what it found lost, and what is sound by then is left alone.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, InferenceFailed
from app.image_spec import ImageInfo, ImageSpec
from app.jobs.handler import Json
from app.jobs.record import advance, set_total
from app.jobs.run import JobRun
from app.node.client import NodeClient
from app.services.datasets.recipe import Place, Recipe
from app.services.datasets.service import find_dataset
from app.services.generations.records import image_columns
from app.services.images.lost_files import LostImage, lost_image
from app.services.jobs.kinds import RepairKind
from app.services.jobs.waiting import patience, store
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

CHUNK_SIZE = 64
# Images drawn at a time: enough that the engine finds a batch waiting.
DRAWN_AT_ONCE = 8
# Images that a result names, of each sort.
MAX_TOLD = 200


class RepairJob(RepairKind):
    """Handler of `repair` jobs."""

    def __init__(self, db: Database, folder: DataFolder, node: NodeClient) -> None:
        """Wire the handler."""
        self._db = db
        self._folder = folder
        self._node = node

    def run(self, job: JobRun) -> dict[str, Json]:
        """Look at all files, kept and rejected ones; nothing else changes the dataset meanwhile."""
        dataset_id = job.spec["dataset_id"]
        total: Any = job.transaction("count-files", lambda session: _begin(session, job, dataset_id))
        starts = range(0, total, CHUNK_SIZE)
        items = [{"dataset_id": dataset_id, "start": start, "stop": min(start + CHUNK_SIZE, total)} for start in starts]
        ended: list[dict[str, Any]] = job.chunks(items)
        unrestored = _told(ended, "unrestored")
        return {
            "dataset_id": dataset_id,
            "num_checked": total,
            "num_restored": sum(chunk["num_restored"] for chunk in ended),
            "num_redrawn": sum(len(chunk["redrawn"]) for chunk in ended),
            "num_unrestored": sum(len(chunk["unrestored"]) for chunk in ended),
            "redrawn": _told(ended, "redrawn"),
            "unrestored": unrestored,
        }

    def run_chunk(self, job: JobRun, item: Json) -> Json:
        """Look at some files, and draw again what is lost.

        Returns:
            `num_restored`: images that have the bytes of their record again; `redrawn`: those that are new ones;
            `unrestored`: those that stay lost.
        """
        start, stop = item["start"], item["stop"]
        found: Any = job.step("look", lambda: self._look(job, item["dataset_id"], start, stop))
        with ThreadPoolExecutor(DRAWN_AT_ONCE) as pool:
            outcomes = list(pool.map(lambda lost: self._restore(job, LostImage(**lost)), found))
        job.transaction("progress", lambda session: advance(session, job.id, stop - start))
        return {
            "num_restored": outcomes.count(None),
            "redrawn": [outcome for outcome in outcomes if outcome and "new_image_id" in outcome],
            "unrestored": [outcome for outcome in outcomes if outcome and "new_image_id" not in outcome],
        }

    def tidy(self, job: JobRun) -> None:
        """Leave everything: each file is whole, and what was set aside is kept."""

    def _look(self, job: JobRun, dataset_id: str, start: int, stop: int) -> Json:
        """Return the lost ones of a chunk's images."""
        with self._db.snapshot() as session:
            images = list(session.scalars(_images(dataset_id).offset(start).limit(stop - start)))
        checks, lost = FileChecks(self._folder), []
        for image in images:
            job.check_cancelled()
            lost.append(lost_image(checks, image))
        return [one.to_json() for one in lost if one is not None]

    def _restore(self, job: JobRun, lost: LostImage) -> dict[str, Any] | None:
        """Draw an image again; None once it has the bytes of its record."""
        with self._db.snapshot() as session:
            image = session.scalars(select(Image).where(Image.path == lost.path)).one()
            dataset = find_dataset(session, image.dataset_id or "")
        if lost_image(FileChecks(self._folder), image) is None:  # by an earlier run of this chunk
            return None if image.id == lost.image_id else _redrawn(lost, image.id)
        if image.source != "synthetic":
            return lost.to_json()
        recipe, place = Recipe(dataset), Place(image.split or "", image.class_index or 0, image.position)
        try:
            data, info = self._node.render(
                ImageSpec.from_json(image.lineage), labels=recipe.texts, background=True, keep_waiting=patience(job)
            )
        except InferenceFailed:
            return {**lost.to_json(), "code": InferenceFailed.default_code}
        _refuse_other_pack(image, info)
        if info.sha256 == image.sha256:
            self._replace(job, image.path, data)
            return None
        scores = info.label_probabilities or []
        probabilities = [score["probability"] for score in scores]
        verdict = recipe.judge(place, probabilities)
        if info.flagged or verdict.decision != image.decision:
            return {**lost.to_json(), "code": "image_differs"}
        info = replace(info, label_probabilities=recipe.scores(place, probabilities) if scores else None)
        self._replace(job, image.path, data)
        return _redrawn(lost, self._record(image, info, verdict.reason))

    def _replace(self, job: JobRun, path: str, data: bytes) -> None:
        job.check_cancelled()  # before the damaged file is set aside: another worker may do this by now
        self._folder.set_aside(path)
        store(job, self._folder, path, data)

    def _record(self, image: Image, info: ImageInfo, reason: str | None) -> str:
        """Replace an image's row by that of a new image at the same place; return the new id.

        The bytes under an id never change, so that what a client keeps of it stays right.
        """
        columns = image_columns(info)
        drawn = {name: image.lineage[name] for name in ("template", "variables", "attempt") if name in image.lineage}
        columns["lineage"] = {**columns["lineage"], **drawn, "redrawn_for": {"id": image.id, "sha256": image.sha256}}
        names = ("dataset_id", "split", "class_index", "position", "path", "source", "decision")
        place = {name: getattr(image, name) for name in names}
        with self._db.transaction() as session:
            session.delete(session.get_one(Image, image.id))
            session.flush()
            session.add(new := Image(id=new_id(), reason=reason, **place, **columns))
        return new.id


def _images(dataset_id: str) -> Select[Any]:
    """Select a dataset's images in an order that no repair changes."""
    return select(Image).where(Image.dataset_id == dataset_id).order_by(Image.path)


def _begin(session: Session, job: JobRun, dataset_id: str) -> Json:
    find_dataset(session, dataset_id)
    num = session.scalar(select(func.count()).where(Image.dataset_id == dataset_id)) or 0
    set_total(session, job.id, num)
    return num


def _refuse_other_pack(image: Image, info: ImageInfo) -> None:
    """Stop where another pack is loaded by now than the one that drew the image.

    Raises:
        Conflict: `pack_changed`.
    """
    if any(image.lineage[name] != info.lineage[name] for name in ("pack", "pack_revision")):
        raise Conflict(
            "Another model pack is loaded than the one that drew this dataset. Load that pack.",
            code=ErrorCode.PACK_CHANGED,
        )


def _redrawn(lost: LostImage, new_image_id: str) -> dict[str, Any]:
    return {**lost.to_json(), "new_image_id": new_image_id}


def _told(ended: Iterable[dict[str, Any]], sort: str) -> list[Any]:
    return [image for chunk in ended for image in chunk[sort]][:MAX_TOLD]
