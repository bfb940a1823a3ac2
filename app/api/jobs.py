"""Background jobs of every kind: list, read, cancel."""

from fastapi import APIRouter

from app.api.deps import Cursor, Id, Limit, ServicesDep
from app.api.openapi import problems
from app.schemas.common import Page
from app.schemas.jobs import JobKind, JobRead, JobStatus

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("", summary="List jobs", responses=problems(400, 422, 503))
def list_jobs(
    services: ServicesDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    kind: JobKind | None = None,
    status: JobStatus | None = None,
) -> Page[JobRead]:
    """Newest first; of one kind or status if given."""
    return services.jobs.page(limit, cursor, kind=kind, status=status)


@router.get("/{job_id}", summary="Read a job", responses=problems(404, 503))
def get_job(job_id: Id, services: ServicesDep) -> JobRead:
    """Its status, its progress and, at the end, its result or its error."""
    return services.jobs.read(job_id)


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=problems(404, 503))
def cancel_job(job_id: Id, services: ServicesDep) -> JobRead:
    """A running job ends at its next image; a finished one stays as it is."""
    return services.jobs.cancel(job_id)
