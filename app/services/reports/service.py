"""The service for dataset reports: as JSON or as an HTML page, and the contact sheet.

Imports no HTTP framework. Runs on the event loop of the API process, which awaits the engine; a thread pool reads
records and files and computes the metrics. A report describes the dataset at the time of the request; no database
connection is held while the models run.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np
from PIL import Image as Pillow
from sqlalchemy import select

from app.db.models import Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, Invalid, NotFound, PayloadTooLarge, QueueFull, UnsupportedImage
from app.schemas.reports import MAX_LEFT_OUT, MAX_SHEET_ROWS, DatasetReportRead, LeftOutImage
from app.services.datasets.rows import find_dataset
from app.services.datasets.versions import content_version, images_of
from app.services.images.lost_files import lost_image
from app.services.inference.service import Inference
from app.services.limits import Limits
from app.services.process.thread_pools import Pools
from app.services.reports.build import Content, Entry, Judged, own_probabilities, report_of
from app.services.reports.contact_sheet import Row, Tile, contact_sheet
from app.services.reports.html import report_page
from app.services.reports.judgements import ImageJudge, Judgement, StoredImage
from app.services.reports.metrics import ranked
from app.storage.image_formats import decode_image
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

T = TypeVar("T")

# Concurrent reports. Each holds embeddings and logits of up to 10,000 images: 60 MB at 1,000 classes.
MAX_AT_ONCE = 2
RETRY_AFTER_S = 10


class DatasetReportService:
    """Creates reports and contact sheets of datasets."""

    def __init__(
        self, db: Database, folder: DataFolder, inference: Inference, judge: ImageJudge, limits: Limits, pools: Pools
    ) -> None:
        """Wire the service; `folder` is the node's data folder."""
        self._db = db
        self._folder = folder
        self._inference = inference
        self._judge = judge
        self._limits = limits
        self._pool = pools.reports
        self._num_running = 0

    async def report(
        self, dataset_id: str, *, max_images: int, near_duplicate_cosine: float | None, caller: str = ""
    ) -> DatasetReportRead:
        """Judge those images of a dataset that have no cached judgement, and compute the report.

        Args:
            dataset_id: Id of the dataset.
            max_images: Most images to judge, >= 1.
            near_duplicate_cosine: Least cosine of near-duplicates, -1 .. 1; None: the pack's value.
            caller: Whose request it is.

        Raises:
            NotFound: There is no dataset with this id.
            Conflict: It has no images, or none that can be judged.
            QueueFull: The limit of concurrent reports is reached, or the engine's queue stayed full.
            ModelNotReady: A model is not loaded.
            StorageFull, Unavailable: The storage cannot be used.
        """
        return (await self._reported(dataset_id, max_images, near_duplicate_cosine, caller))[1]

    async def page(
        self, dataset_id: str, *, max_images: int, near_duplicate_cosine: float | None, images: str, caller: str = ""
    ) -> str:
        """Return the report as an HTML page; `images` is the URL of images, to which an id is appended.

        Raises:
            NotFound, Conflict, QueueFull, ModelNotReady, StorageFull, Unavailable: As by `report`.
        """
        name, report = await self._reported(dataset_id, max_images, near_duplicate_cosine, caller)
        return await self._run(report_page, report, name, images)

    async def contact_sheet(
        self, dataset_id: str, *, max_images: int, columns: int, first_class: int, caller: str = ""
    ) -> bytes:
        """Return a PNG with a row for each class: its best image, its worst image, then others by their hashes.

        Args:
            dataset_id: Id of the dataset.
            max_images: Most images to judge, >= 1.
            columns: Images in a row, >= 1.
            first_class: Index of the first class shown, >= 0.
            caller: Whose request it is.

        Raises:
            Invalid: The dataset has no class with this index.
            NotFound, Conflict, QueueFull, ModelNotReady, StorageFull, Unavailable: As by `report`.
        """
        with self._admit():
            content = await self._run(self._content, dataset_id, max_images)
            names = [entry["name"] for entry in content.dataset.classes][first_class : first_class + MAX_SHEET_ROWS]
            if not names:
                raise Invalid.field("#query/first_class", "The dataset has fewer classes.", ErrorCode.CLASS_NOT_FOUND)
            shown = range(first_class, first_class + len(names))
            sample = [entry for entry in content.sample if entry.class_index in shown]
            judged = await self._judged(content, sample, caller)
            return await self._run(self._drawn, content.dataset, shown, judged, columns)

    async def _reported(
        self, dataset_id: str, max_images: int, cosine: float | None, caller: str
    ) -> tuple[str, DatasetReportRead]:
        """Return the dataset's name and its report."""
        with self._admit():
            content = await self._run(self._content, dataset_id, max_images)
            judged = await self._judged(content, content.sample, caller)
            pack, labels = self._inference.pack, self._inference.classes
            report = await self._run(report_of, content, judged, pack, labels, cosine)
            report.left_out = await self._run(self._left_out, content.sample, judged)
        return content.dataset.name, report

    async def _run(self, call: Callable[..., T], *arguments: Any) -> T:
        return await self._pool.run(partial(call, *arguments))

    def _left_out(self, sample: Sequence[Entry], judged: Judged) -> list[LeftOutImage]:
        """Return the first images that could not be judged, each with the error code."""
        known = {entry.id for entry in judged.entries}
        ids = [entry.id for entry in sample if entry.id not in known][:MAX_LEFT_OUT]
        checks = FileChecks(self._folder)
        with self._db.snapshot() as session:
            images = list(session.scalars(select(Image).where(Image.id.in_(ids)).order_by(Image.path)))
        found = [(image, lost_image(checks, image)) for image in images]
        return [
            LeftOutImage(image_id=image.id, url=f"/images/{image.id}", code=lost.code if lost else "not_judged")
            for image, lost in found
        ]

    @contextmanager
    def _admit(self) -> Iterator[None]:
        """Count one request against the limit of concurrent reports."""
        if self._num_running >= MAX_AT_ONCE:
            raise QueueFull("The limit of concurrent reports is reached. Try again later.", retry_after_s=RETRY_AFTER_S)
        self._num_running += 1
        try:
            yield
        finally:
            self._num_running -= 1

    def _content(self, dataset_id: str, max_images: int) -> Content:
        columns: tuple[Any, ...] = (Image.id, Image.path, Image.sha256, Image.split, Image.class_index, Image.source)
        with self._db.snapshot() as session:
            dataset = find_dataset(session, dataset_id)
            entries = [Entry(*row) for row in session.execute(images_of(dataset_id).with_only_columns(*columns))]
        if not entries:
            raise Conflict("The dataset has no images yet.", code=ErrorCode.DATASET_EMPTY)
        version = content_version(dataset, ((entry.split, entry.class_index, entry.sha256) for entry in entries))
        return Content(dataset, version, entries, sample_of(entries, max_images))

    async def _judged(self, content: Content, entries: Sequence[Entry], caller: str) -> Judged:
        stored = [StoredImage(entry.path, entry.sha256) for entry in entries]
        judgements = await self._judge.judge(stored, content.texts, caller=caller)
        return await self._run(_stacked, entries, judgements)

    def _drawn(self, dataset: Dataset, shown: range, judged: Judged, columns: int) -> bytes:
        own = own_probabilities(judged)
        rows = []
        for index in shown:
            order = np.flatnonzero(judged.own == index)
            order = order[ranked(own[order])]
            tiles = [
                self._tile(judged.entries[i], mark) for i, mark in _marked(judged.entries, order.tolist(), columns)
            ]
            entry = dataset.classes[index]
            rows.append(Row(f"{index} {entry['name']}", tiles, f"{index} {entry['folder']}"))
        title = f"{dataset.name}: green is each class's most probable image by CLIP, red its least probable"
        return contact_sheet(title, rows, columns)

    def _tile(self, entry: Entry, mark: str) -> Tile:
        return Tile(partial(self._picture, entry), mark)

    def _picture(self, entry: Entry) -> Pillow.Image | None:
        limits = self._limits
        try:
            data = self._folder.read(entry.path)
            return decode_image(data, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
        except (NotFound, Invalid, PayloadTooLarge, UnsupportedImage):  # deleted or damaged since it was judged
            return None


def sample_of(entries: Sequence[Entry], max_images: int) -> list[Entry]:
    """Return at most `max_images` images, evenly from each class and split, those with the smallest hashes."""
    if len(entries) <= max_images:
        return list(entries)
    taken: Counter[tuple[str, int]] = Counter()
    turns = []
    for entry in sorted(entries, key=lambda entry: (entry.sha256, entry.path)):
        group = (entry.split, entry.class_index)
        turns.append((taken[group], group, entry))
        taken[group] += 1
    turns.sort(key=lambda turn: turn[:2])
    return [entry for _, _, entry in turns[:max_images]]


def _stacked(entries: Sequence[Entry], judgements: Sequence[Judgement | None]) -> Judged:
    pairs = [(entry, found) for entry, found in zip(entries, judgements, strict=True) if found is not None]
    if entries and not pairs:
        raise Conflict("None of the images can be read and scored.", code=ErrorCode.DATASET_UNREADABLE)
    return Judged.of(pairs)


def _marked(entries: Sequence[Entry], order: Sequence[int], columns: int) -> list[tuple[int, str]]:
    """Return a row's images: the best, the worst, then others by their hashes; `order` begins with the worst."""
    best, worst = list(order[-1:]), list(order[:-1][:1])
    others = sorted(order[1:-1], key=lambda i: entries[i].sha256)
    marks = [(i, "best") for i in best] + [(i, "worst") for i in worst] + [(i, "") for i in others]
    return marks[:columns]
