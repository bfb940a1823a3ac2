"""Figures from the database: jobs, workers and recorded bytes.

Every query reads at most one table. Runs on the thread of `Figures`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import case, func, select

from app.db.base import utc_now
from app.db.models import Image, Job, TrainedModel, Worker, active_jobs
from app.db.session import Database


@dataclass(frozen=True, slots=True)
class JobFigures:
    """Jobs and workers of all nodes.

    Attributes:
        numbers: Jobs that have not ended, by kind and status.
        queued_since: When the oldest queued job of each kind was made.
        beats: The latest heartbeat of each worker.
    """

    numbers: Mapping[tuple[str, ...], int] = field(default_factory=dict)
    queued_since: Mapping[str, datetime] = field(default_factory=dict)
    beats: tuple[datetime, ...] = ()


def read_jobs(db: Database) -> JobFigures:
    """Count active jobs, which have an index of their own, and workers.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    counted = select(Job.kind, Job.status, func.count()).where(active_jobs()).group_by(Job.kind, Job.status)
    queued = select(Job.kind, func.min(Job.created_at)).where(active_jobs(), Job.status == "queued").group_by(Job.kind)
    with db.snapshot() as session:
        return JobFigures(
            numbers={(kind, status): number for kind, status, number in session.execute(counted)},
            queued_since={row[0]: row[1] for row in session.execute(queued)},
            beats=tuple(session.scalars(select(Worker.beat_at))),
        )


def read_ended_jobs(db: Database) -> dict[tuple[str, ...], int]:
    """Count the jobs that have ended, by kind and status; reads the whole table.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    counted = select(Job.kind, Job.status, func.count()).where(~active_jobs()).group_by(Job.kind, Job.status)
    with db.snapshot() as session:
        return {(kind, status): number for kind, status, number in session.execute(counted)}


def read_bytes(db: Database) -> dict[str, int]:
    """Add up the recorded bytes of generated images, of datasets (rejected images included) and of trained models.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    generated = func.sum(case((Image.generation_id.is_not(None), Image.num_bytes), else_=0))
    with db.snapshot() as session:
        of_images, all_images = session.execute(select(generated, func.sum(Image.num_bytes))).one()
        of_models = session.scalar(select(func.sum(TrainedModel.num_bytes)))
    images = int(of_images or 0)
    return {"images": images, "datasets": int(all_images or 0) - images, "models": int(of_models or 0)}


def ages_s(times: Mapping[str, datetime]) -> dict[str, float]:
    """Return the seconds since each of some times, >= 0."""
    now = utc_now()
    return {name: max(0.0, (now - at).total_seconds()) for name, at in times.items()}
