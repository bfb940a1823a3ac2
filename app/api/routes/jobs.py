"""Background jobs of every kind: list, read, follow, cancel, pause, resume, retry."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from app.api.deps import Cursor, Id, Limit, ServicesDep
from app.api.openapi import problems
from app.api.routes.datasets import LOCATION
from app.api.submissions import SubmissionDep
from app.schemas.common import Page
from app.schemas.jobs import JobKind, JobRead, JobStatus, JobSummary
from app.services.jobs.events import JobWatch

router = APIRouter(prefix="/jobs", tags=["jobs"])

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "`status` and `progress` events; each one's data is the job as `GET /jobs` tells it."}
}


@router.get("", summary="List jobs", responses=problems(400, 422, 503))
def list_jobs(
    services: ServicesDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    kind: JobKind | None = None,
    status: JobStatus | None = None,
) -> Page[JobSummary]:
    """Newest first; of one kind or status if given. A job's `spec` is told with the job."""
    return services.jobs.page(limit, cursor, kind=kind, status=status)


@router.get("/{job_id}", summary="Read a job", responses=problems(404, 503))
def get_job(job_id: Id, services: ServicesDep) -> JobRead:
    """Its status, its progress and, at the end, its result or its error."""
    return services.jobs.read(job_id)


async def _watch(
    job_id: Id,
    services: ServicesDep,
    last_event_id: Annotated[
        str, Header(max_length=200, description="The version seen last; anything else counts as none.")
    ] = "",
) -> AsyncIterator[JobWatch]:
    seen = (
        int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 10 else None
    )
    async with services.events.watch(job_id, seen_version=seen) as watch:
        yield watch


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses={**_EVENTS, **problems(404, 422, 503)},
)
async def follow_job(watch: Annotated[JobWatch, Depends(_watch)]) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events until the job has ended: its state now, then each newer one; close after the last.

    An event's id is the job's `version`. States that follow each other within half a second may be told as one.
    """
    status = None
    async for job in watch:
        yield ServerSentEvent(data=job, event="progress" if job.status == status else "status", id=str(job.version))
        status = job.status


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=problems(404, 503))
def cancel_job(job_id: Id, services: ServicesDep) -> JobRead:
    """A running job ends at its next image; a finished one stays as it is."""
    return services.jobs.cancel(job_id)


@router.post("/{job_id}/pause", summary="Pause a job", responses=problems(404, 503))
def pause_job(job_id: Id, services: ServicesDep) -> JobRead:
    """A running job rests from its next image on, and is `paused` soon after; a finished one stays as it is."""
    return services.jobs.pause(job_id)


@router.post("/{job_id}/resume", summary="Resume a job", responses=problems(404, 503))
def resume_job(job_id: Id, services: ServicesDep) -> JobRead:
    """A paused job is queued again and goes on where it was; any other stays as it is."""
    return services.jobs.resume(job_id)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    summary="Retry a job",
    responses={
        202: {"description": "Accepted as a new job.", "headers": LOCATION},
        **problems(400, 404, 409, 422, 503, 507),
    },
)
def retry_job(job_id: Id, services: ServicesDep, response: Response, submission: SubmissionDep) -> JobRead:
    """Do again, as a new job, what a failed or cancelled one left undone; a dataset keeps the images it has.

    A job that succeeded and left its dataset `incomplete` is done again as well: its empty places are tried with seeds
    that have not been tried yet.
    """
    job = services.jobs.retry(job_id, submission)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job
