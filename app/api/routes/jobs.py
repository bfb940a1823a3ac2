"""Routes of background jobs: list, read, follow, cancel, pause, resume, retry. Only `follow` runs on the event loop."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import Response

from app.api.access.ids import CallerDep, ControlledJobId, JobId
from app.api.deps import CreatedAfter, Cursor, DatasetIdQuery, Limit, ServicesDep
from app.api.openapi import accepted, problems
from app.api.submissions import SubmissionDep
from app.api.waiting import AFTER_JOB
from app.schemas.jobs import JobPage, JobRead
from app.schemas.progress import JobKind, JobStatus
from app.schemas.response_docs import event_stream, headers
from app.services.jobs.events import JobWatch

router = APIRouter(prefix="/jobs", tags=["jobs"])

# When a client whose connection was lost connects again, in ms; told by the first event.
RETRY_MS = 2_000

_EVENTS = event_stream(
    "JobSummary",
    "`status` and `progress` events; the data of each is the job as in `GET /jobs`.",
    'event: status\nid: 7\nretry: 2000\ndata: {"kind":"dataset","status":"running","version":7}\n\n',
)


_NOTHING_NEW = {"description": "The job has ended, and `Last-Event-ID` is its last version. Do not reconnect."}


@router.get("", summary="List jobs", response_description="A page of jobs.", responses=problems(400, 422, 503))
def list_jobs(
    services: ServicesDep,
    caller: CallerDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    kind: Annotated[JobKind | None, Query(description="Of the jobs.")] = None,
    status: Annotated[JobStatus | None, Query(description="Of the jobs.")] = None,
    dataset_id: DatasetIdQuery = None,
    created_after: CreatedAfter = None,
) -> JobPage:
    """Return a page of jobs, newest first, of those that match; `spec` is only in `GET /jobs/{job_id}`."""
    return services.jobs.page(
        limit, cursor, caller, kind=kind, status=status, dataset_id=dataset_id, created_after=created_after
    )


@router.get(
    "/{job_id}",
    summary="Read a job",
    responses={200: {"description": "The job.", "headers": headers("Preference-Applied")}, **problems(404, 503)},
    dependencies=[AFTER_JOB],
)
def get_job(job_id: JobId, services: ServicesDep) -> JobRead:
    """Return the status, the progress and, after the end, the result or the error.

    `curl -H 'Prefer: wait=30' http://127.0.0.1:8000/jobs/{job_id}` waits for the end of the job.
    """
    return services.jobs.read(job_id)


async def _watch(
    job_id: JobId,
    services: ServicesDep,
    last_event_id: Annotated[
        str | None, Header(max_length=200, description="The job version last received; an invalid value is ignored.")
    ] = None,
) -> AsyncIterator[JobWatch]:
    last = last_event_id or ""
    seen = int(last) if last.isascii() and last.isdigit() and len(last) < 10 else None
    async with services.events.watch(job_id, seen_version=seen) as watch:
        if watch.is_over:  # the one status that a browser's EventSource does not reconnect after, but for errors
            raise HTTPException(204)
        yield watch


@router.get(
    "/{job_id}/events",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses={200: _EVENTS, 204: _NOTHING_NEW, **problems(404, 422, 503)},
)
async def follow_job(watch: Annotated[JobWatch, Depends(_watch)]) -> AsyncIterator[ServerSentEvent]:
    """Stream server-sent events until the job has ended: the current state, then each newer one.

    The id of an event is the job's `version`. States that follow each other within 0.5 s may be merged into one event.
    The last event is a `status` event with an ended status, and the stream ends. A client that reconnects with the id
    of that event gets 204, which tells a browser's EventSource to stop.
    """
    status: str | None = None
    retry: int | None = RETRY_MS
    async for job in watch:
        event = "progress" if job.status == status else "status"
        yield ServerSentEvent(data=job, event=event, id=str(job.version), retry=retry)
        status, retry = job.status, None


@router.post("/{job_id}/cancel", summary="Cancel a job", response_description="The job.", responses=problems(404, 503))
def cancel_job(job_id: ControlledJobId, services: ServicesDep) -> JobRead:
    """Cancel the job. A running job ends after its current image; a finished job is unchanged."""
    return services.jobs.cancel(job_id)


@router.post("/{job_id}/pause", summary="Pause a job", response_description="The job.", responses=problems(404, 503))
def pause_job(job_id: ControlledJobId, services: ServicesDep) -> JobRead:
    """Pause the job. A running job becomes `paused` after its current image; a finished job is unchanged."""
    return services.jobs.pause(job_id)


@router.post("/{job_id}/resume", summary="Resume a job", response_description="The job.", responses=problems(404, 503))
def resume_job(job_id: ControlledJobId, services: ServicesDep) -> JobRead:
    """Queue a paused job again; it continues where it stopped. Any other job is unchanged."""
    return services.jobs.resume(job_id)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    summary="Retry a job",
    responses=accepted("Accepted as a new job.", 404),
)
def retry_job(job_id: ControlledJobId, services: ServicesDep, response: Response, submission: SubmissionDep) -> JobRead:
    """Create a new job for the unfinished work of a failed or cancelled one; a dataset keeps its images.

    A job that succeeded but left its dataset `incomplete` can be retried too: its empty slots are tried with new seeds.
    """
    job = services.jobs.retry(job_id, submission)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job
