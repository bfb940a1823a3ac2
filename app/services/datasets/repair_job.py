"""The `repair` job: checks every file of a dataset, and generates lost images again.

A damaged file is kept in `.lost+found` before it is replaced. An image is generated again from its own record. The same
models on the same kind of device give the same bytes; if they do not, the image gets a new row and id, which the result
lists. Uploaded images cannot be generated: the result lists them, and they are left unchanged.

A chunk records which images are lost. Repeated after a crash, it continues with these, and leaves files unchanged that
are sound by then. Imports no model: the node's engine renders. Runs in the worker process, on the threads of the job.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.db.base import new_id
from app.db.models import Image
from app.db.session import Database
from app.errors import InferenceFailed
from app.image_spec import ImageInfo, ImageSpec
from app.jobs.handler import JobContext
from app.jobs.record import advance, set_total
from app.jobs.signals import Json
from app.logs.context import carried
from app.node.client import NodeClient
from app.services.datasets.payloads import FilesChunk, FilesChunkResult, RepairResult, RepairSpec, Restoration
from app.services.datasets.recipes.recipe import Recipe, Slot
from app.services.datasets.recipes.shots.records import shot_files
from app.services.datasets.rows import find_dataset, pack_changed
from app.services.generations.records import image_columns
from app.services.images.lost_files import LostImage, lost_image
from app.services.jobs.kinds import RepairKind
from app.services.jobs.wait_policy import store, wait_policy
from app.storage.layout import DataFolder
from app.storage.lost_found import keep_in_lost_found
from app.storage.soundness import FileChecks

CHUNK_SIZE = 64
# Images generated concurrently: enough for the engine to form batches.
GENERATED_AT_ONCE = 8
# Most images of each kind that a result lists.
MAX_NAMED = 200


class RepairJob(RepairKind):
    """Handler of `repair` jobs."""

    def __init__(self, db: Database, folder: DataFolder, node: NodeClient) -> None:
        """Use the database, the data folder and the node's engine."""
        self._db = db
        self._folder = folder
        self._node = node

    def run(self, job: JobContext) -> dict[str, Json]:
        """Check all files, kept and rejected ones; nothing else changes the dataset meanwhile."""
        dataset_id = RepairSpec.from_json(job.spec).dataset_id
        total: int = job.transaction("count-files", lambda session: _begin(session, job, dataset_id))
        starts = range(0, total, CHUNK_SIZE)
        items = [FilesChunk(dataset_id, start, min(start + CHUNK_SIZE, total)).to_json() for start in starts]
        ended = [FilesChunkResult.from_json(result) for result in job.chunks(items)]
        return RepairResult.of(dataset_id, total, ended, MAX_NAMED).to_json()

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Check the files of a chunk, and generate the lost images again."""
        chunk = FilesChunk.from_json(item)
        lost = [
            LostImage(**recorded)
            for recorded in job.step("look", lambda: [one.to_json() for one in self._check(job, chunk)])
        ]
        with ThreadPoolExecutor(GENERATED_AT_ONCE) as pool:
            restorations = list(pool.map(carried(partial(self._restore, job)), lost))
        job.transaction("progress", lambda session: advance(session, job.id, chunk.stop - chunk.start))
        return FilesChunkResult.of(restorations).to_json()

    def cleanup(self, job: JobContext) -> None:
        """Do nothing: every file is complete, and damaged ones stay in `.lost+found`."""

    def _check(self, job: JobContext, chunk: FilesChunk) -> list[LostImage]:
        """Return the images of a chunk that have no sound file."""
        with self._db.snapshot() as session:
            query = _images(chunk.dataset_id).offset(chunk.start).limit(chunk.stop - chunk.start)
            images = list(session.scalars(query))
        checks, lost = FileChecks(self._folder), []
        for image in images:
            job.check_cancelled()
            lost.append(lost_image(checks, image))
        return [one for one in lost if one is not None]

    def _restore(self, job: JobContext, lost: LostImage) -> Restoration:
        """Generate a lost image again, unless it was uploaded or an earlier run of this chunk has restored it."""
        with self._db.snapshot() as session:
            image = session.scalars(select(Image).where(Image.path == lost.path)).one()
            dataset = find_dataset(session, image.dataset_id or "", with_texts=True)
        if lost_image(FileChecks(self._folder), image) is None:
            return Restoration() if image.id == lost.image_id else Restoration(lost, image.id)
        if image.source != "synthetic":
            return Restoration(lost)
        return self._redraw(job, lost, image, Recipe(dataset))

    def _redraw(self, job: JobContext, lost: LostImage, image: Image, recipe: Recipe) -> Restoration:
        slot = Slot(image.split or "", image.class_index or 0, image.position)
        spec = ImageSpec.from_json(image.lineage)
        pictures = shot_files(self._db, image.dataset_id or "", spec)
        try:
            data, info = self._node.render(
                spec,
                labels=recipe.filter.texts,
                background=True,
                keep_waiting=wait_policy(job),
                caller=job.caller,
                pictures=pictures,
            )
        except InferenceFailed:
            return Restoration(replace(lost, code=InferenceFailed.default_code))
        _refuse_other_pack(image, info)
        if info.sha256 == image.sha256:
            self._replace(job, image.path, data)
            return Restoration()
        scores = info.label_probabilities or []
        probabilities = [score["probability"] for score in scores]
        verdict = recipe.filter.apply(slot.class_index, probabilities)
        if info.flagged or verdict.decision != image.decision:
            return Restoration(replace(lost, code="image_differs"))
        recorded = recipe.filter.scores(slot.class_index, probabilities) if scores else None
        info = replace(info, label_probabilities=recorded)
        self._replace(job, image.path, data)
        return Restoration(lost, self._record(image, info, verdict.reason))

    def _replace(self, job: JobContext, path: str, data: bytes) -> None:
        job.check_cancelled()  # before the damaged file is kept: another worker may have taken over the work
        keep_in_lost_found(self._folder, path)
        store(job, self._folder, path, data)

    def _record(self, image: Image, info: ImageInfo, reason: str | None) -> str:
        """Replace an image's row by that of a new image with the same path; return the new id.

        The bytes under an id never change, so that a client's copy stays valid.
        """
        columns = image_columns(info)
        drawn = {name: image.lineage[name] for name in ("template", "variables", "attempt") if name in image.lineage}
        columns["lineage"] = {**columns["lineage"], **drawn, "redrawn_for": {"id": image.id, "sha256": image.sha256}}
        names = ("dataset_id", "split", "class_index", "position", "path", "source", "decision")
        same = {name: getattr(image, name) for name in names}
        with self._db.transaction() as session:
            session.delete(session.get_one(Image, image.id))
            session.flush()
            session.add(new := Image(id=new_id(), reason=reason, **same, **columns))
        return new.id


def _images(dataset_id: str) -> Select[Any]:
    """Select a dataset's images in an order that no repair changes."""
    return select(Image).where(Image.dataset_id == dataset_id).order_by(Image.path)


def _begin(session: Session, job: JobContext, dataset_id: str) -> int:
    find_dataset(session, dataset_id)
    num = session.scalar(select(func.count()).where(Image.dataset_id == dataset_id)) or 0
    set_total(session, job.id, num)
    return num


def _refuse_other_pack(image: Image, info: ImageInfo) -> None:
    """Refuse to generate an image with another pack than the one that generated it.

    Raises:
        Conflict: `pack_changed`.
    """
    if any(image.lineage[name] != info.lineage[name] for name in ("pack", "pack_revision")):
        raise pack_changed()
