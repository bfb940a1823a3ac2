"""The service for reports of train jobs: as JSON, as an HTML page, and each chart as a PNG file.

Imports no HTTP framework and no torch. Called on the event loop of the API process; everything is read, computed and
drawn on a thread of the reports' pool.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from app.db.models import Dataset, Evaluation, Job, TrainedModel, TrainEpoch
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, NotFound
from app.schemas.train_reports import PictureName, TrainReportRead
from app.services.evaluation.details import EvaluationDetails
from app.services.evaluation.report.build import ReportSource, build_report
from app.services.evaluation.report.lineage import read_origin
from app.services.evaluation.report.page import render_html, render_png
from app.services.evaluation.report.thumbnails import Thumbnails
from app.services.limits import Limits
from app.services.process.thread_pools import Pools
from app.storage.image_formats import DecodeImage, decode_image
from app.storage.soundness import FileChecks

T = TypeVar("T")

# The charts, as `draw_pictures` names them.


class TrainReportService:
    """Creates reports of train jobs."""

    def __init__(
        self, db: Database, checks: FileChecks, limits: Limits, pools: Pools, *, decode: DecodeImage = decode_image
    ) -> None:
        """Wire the service; `checks` and `decode` read the images of the thumbnails."""
        self._db = db
        self._thumbnails = Thumbnails(db, checks, limits, decode)
        self._pool = pools.reports

    async def report(self, job_id: str) -> TrainReportRead:
        """Return the report of a train job.

        Raises:
            NotFound: There is no train job with this id, or its model was deleted.
            Conflict: The job has not succeeded.
            QueueFull: Too many reports wait.
        """
        return await self._run(partial(self._report, job_id))

    async def page(self, job_id: str) -> str:
        """Return the report as an HTML page; raises as `report`."""
        return await self._run(lambda: render_html(self._report(job_id)))

    async def picture(self, job_id: str, name: PictureName) -> bytes:
        """Return a chart of the report as a PNG file.

        Raises:
            NotFound: As `report`, or the report has no figures for this chart.
            Conflict, QueueFull: As `report`.
        """
        data = await self._run(lambda: render_png(self._source(job_id), name))
        if data is None:
            raise NotFound("The report has no figures for this chart.")
        return data

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._pool.run(call)

    def _report(self, job_id: str) -> TrainReportRead:
        return self._thumbnails.add(self._source(job_id))

    def _source(self, job_id: str) -> TrainReportRead:
        """Return the report without thumbnails."""
        with self._db.snapshot() as session:
            job, model = _succeeded(session, job_id)
            details = session.scalar(select(Evaluation.details).where(Evaluation.job_id == job_id))
            epochs = session.scalars(select(TrainEpoch).where(TrainEpoch.job_id == job_id).order_by(TrainEpoch.epoch))
            source = ReportSource(
                job=job,
                model=model,
                details=EvaluationDetails.from_json(details or {}),
                epochs=list(epochs),
                origin=read_origin(session, session.get(Dataset, model.dataset_id), model),
            )
        return build_report(source)


def _succeeded(session: Session, job_id: str) -> tuple[Job, TrainedModel]:
    """Return a train job that has succeeded, and its model.

    Raises:
        NotFound: There is no such train job, or its model was deleted.
        Conflict: The job has not succeeded.
    """
    job = session.get(Job, job_id)
    if job is None or job.kind != "train":
        raise NotFound("There is no train job with this id.")
    if job.status != "succeeded":
        ended = job.status in ("failed", "cancelled")
        what = "has no report; a retry that succeeds has one" if ended else "has its report once it has succeeded"
        detail = f"The train job is {job.status}. It {what}."
        raise Conflict(detail, code=ErrorCode.TRAIN_JOB_UNFINISHED)
    query = select(TrainedModel).where(TrainedModel.job_id == job_id).options(undefer(TrainedModel.metric_tables))
    model = session.scalar(query)
    if model is None:
        raise NotFound("The model of this train job was deleted, and its report with it.")
    return job, model
