"""Routes of train jobs. They run on worker threads; import no training code."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from app.api.access.ids import CallerDep, TrainJobId
from app.api.deps import CreatedAfter, Cursor, DatasetIdQuery, Limit, NameQuery, ServicesDep
from app.api.openapi import BODY_STATUSES, accepted, problems
from app.api.parsing.json_bodies import RECIPE_BODY, JsonRoute
from app.api.submissions import SubmissionDep
from app.api.waiting import AFTER_TRAIN_JOB
from app.schemas.progress import JobStatus
from app.schemas.response_docs import headers
from app.schemas.train_jobs import TrainJobCreate, TrainJobPage, TrainJobRead

router = APIRouter(tags=["training"], route_class=JsonRoute)


@router.post(
    "/train-jobs",
    status_code=202,
    summary="Train a classifier",
    responses=accepted("Accepted.", 410, *BODY_STATUSES),
    max_body_size=RECIPE_BODY,
)
def create_train_job(
    body: TrainJobCreate, services: ServicesDep, response: Response, submission: SubmissionDep
) -> TrainJobRead:
    """Train a linear probe on a dataset, or on one that the job generates first."""
    job = services.train_jobs.create(body, submission)
    response.headers["Location"] = f"/train-jobs/{job.id}"
    return job


@router.get(
    "/train-jobs",
    summary="List train jobs",
    response_description="A page of train jobs.",
    responses=problems(400, 422, 503),
)
def list_train_jobs(
    services: ServicesDep,
    caller: CallerDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    name: NameQuery = None,
    status: Annotated[JobStatus | None, Query(description="Of the jobs.")] = None,
    dataset_id: DatasetIdQuery = None,
    created_after: CreatedAfter = None,
) -> TrainJobPage:
    """Return a page of train jobs, newest first, of those that match.

    `spec` and `epochs` are only in `GET /train-jobs/{job_id}`.
    """
    return services.train_jobs.page(
        limit, cursor, caller, name=name, status=status, dataset_id=dataset_id, created_after=created_after
    )


@router.get(
    "/train-jobs/{job_id}",
    summary="Read a train job",
    responses={200: {"description": "The train job.", "headers": headers("Preference-Applied")}, **problems(404, 503)},
    dependencies=[AFTER_TRAIN_JOB],
)
def get_train_job(job_id: TrainJobId, services: ServicesDep) -> TrainJobRead:
    """Return the progress, the epochs so far and, after success, the id of the model.

    With `Prefer: wait=30` the answer waits for the end of the job, as that of `/jobs/{job_id}`.
    """
    return services.train_jobs.read(job_id)


@router.post(
    "/train-jobs/{job_id}/cancel",
    summary="Cancel a train job",
    response_description="The train job.",
    responses=problems(404, 503),
)
def cancel_train_job(job_id: TrainJobId, services: ServicesDep) -> TrainJobRead:
    """Cancel the job; a finished job is unchanged."""
    return services.train_jobs.cancel(job_id)
