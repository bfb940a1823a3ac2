"""The pictures of `generate` jobs: PNG files in the database, kept until the job has used them.

A job and its pictures are accepted in one transaction, and any node may do the job, so they are neither files of one
node nor stored images that could be deleted meanwhile. Imports no engine. Runs in the API process and in the worker.
"""

from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import Job, active_jobs
from app.db.picture_tables import InitImage

# How long a failed or cancelled job can be retried with its pictures.
KEPT = timedelta(days=7)


def add_pictures(session: Session, job_id: str, files: Mapping[str, bytes]) -> None:
    """Add a job's pictures by the names of their fields, and remove those of jobs that ended long ago."""
    if not files:
        return
    session.flush()
    session.add_all(InitImage(job_id=job_id, field=field, data=data) for field, data in files.items())
    active = select(Job.id).where(active_jobs())
    old = delete(InitImage).where(InitImage.created_at < utc_now() - KEPT, InitImage.job_id.not_in(active))
    session.execute(old, execution_options={"synchronize_session": False})


def pictures_of(session: Session, job_id: str) -> dict[str, bytes]:
    """Return the pictures of a job, or else those of the job that it retries; empty where there are none."""
    at: str | None = job_id
    while at is not None:
        rows = session.scalars(select(InitImage).where(InitImage.job_id == at)).all()
        if rows:
            return {row.field: row.data for row in rows}
        at = session.scalar(select(Job.retry_of).where(Job.id == at))
    return {}


def remove_pictures(session: Session, job_id: str) -> None:
    """Remove the pictures of a job that has used them."""
    session.execute(delete(InitImage).where(InitImage.job_id == job_id))
