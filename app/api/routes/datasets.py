"""Datasets: create, extend, list, read, delete, look at the images."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from app.api.deps import ClassQuery, Cursor, Id, Limit, ServicesDep
from app.api.json_bodies import RECIPE_BODY, JsonRoute
from app.api.openapi import problems
from app.api.submissions import SubmissionDep
from app.schemas.common import Decision, Page, Split
from app.schemas.datasets import DatasetCreate, DatasetExtend, DatasetPlan, DatasetRead, DatasetRecipeRead
from app.schemas.generations import ImageRead
from app.schemas.jobs import JobRead

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=JsonRoute)

LOCATION = {"Location": {"description": "The resource.", "schema": {"type": "string"}}}
JOB_LOCATION = {"Location": {"description": "The job.", "schema": {"type": "string"}}}
DryRun = Annotated[bool, Query(description="Only tell what would be made; nothing is stored.")]


@router.post(
    "",
    status_code=202,
    summary="Make a dataset",
    response_model=DatasetRead,
    responses={
        200: {"description": "With `dry_run`: what the request would make.", "model": DatasetPlan},
        202: {"description": "Accepted; `job_id` is the job that makes the images.", "headers": LOCATION},
        **problems(400, 408, 409, 413, 415, 422, 503, 507),
    },
    max_body_size=RECIPE_BODY,
)
def create_dataset(
    body: DatasetCreate,
    services: ServicesDep,
    response: Response,
    submission: SubmissionDep,
    dry_run: DryRun = False,
) -> DatasetRead | Response:
    """Generate `train/{class}` and `test/{class}` in the background; the same seed gives the same files."""
    if dry_run:
        return JSONResponse(services.datasets.plan(body).model_dump(mode="json"))
    dataset = services.datasets.create(body, submission)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.post(
    "/{dataset_id}/extend",
    status_code=202,
    summary="Extend a dataset",
    response_model=DatasetRead,
    responses={
        200: {"description": "With `dry_run`: what the request would add.", "model": DatasetPlan},
        202: {"description": "Accepted; `job_id` is the job that makes the images.", "headers": LOCATION},
        **problems(400, 404, 408, 409, 413, 415, 422, 503, 507),
    },
)
def extend_dataset(
    dataset_id: Id,
    body: DatasetExtend,
    services: ServicesDep,
    response: Response,
    submission: SubmissionDep,
    dry_run: DryRun = False,
) -> DatasetRead | Response:
    """Generate more images of each class, by the dataset's own recipe, at the next places of its seed's sequence.

    10 images a class and 10 more are the files of 20 at once. Refused while a job works on the dataset. What a failed
    or cancelled job left undone is made as well.
    """
    if dry_run:
        return JSONResponse(services.extensions.plan(dataset_id, body).model_dump(mode="json"))
    dataset = services.extensions.extend(dataset_id, body, submission)
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.post(
    "/{dataset_id}/repair",
    status_code=202,
    summary="Repair a dataset",
    responses={
        202: {"description": "Accepted as a job; its `result` tells what was restored.", "headers": JOB_LOCATION},
        **problems(400, 404, 409, 422, 503, 507),
    },
)
def repair_dataset(dataset_id: Id, services: ServicesDep, response: Response, submission: SubmissionDep) -> JobRead:
    """Look at every file of the dataset, and draw lost and damaged images again from their recorded seeds.

    The job's result counts what was restored, names images that were `redrawn` as new ones, where this node does not
    give the same bytes any more, and those that stay `unrestored`: an uploaded image cannot be drawn; the same file,
    uploaded again, takes its place. Damaged files are kept in `.lost+found` of the data folder.
    """
    job = services.repairs.submit(dataset_id, submission)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get("", summary="List datasets", responses=problems(400, 422, 503))
def list_datasets(services: ServicesDep, limit: Limit = 20, cursor: Cursor = None) -> Page[DatasetRead]:
    """Newest first."""
    return services.datasets.page(limit, cursor)


@router.get("/{dataset_id}", summary="Read a dataset", responses=problems(404, 503))
def get_dataset(dataset_id: Id, services: ServicesDep) -> DatasetRead:
    """Its classes with their counts, its status and how far it is; its prompts are in its recipe."""
    return services.datasets.read(dataset_id)


@router.get("/{dataset_id}/recipe", summary="Read a dataset's recipe", responses=problems(404, 503))
def get_dataset_recipe(dataset_id: Id, services: ServicesDep) -> DatasetRecipeRead:
    """Everything settled, in the form that `POST /datasets` takes: under another name, it gives the same images."""
    return services.datasets.recipe(dataset_id)


@router.delete("/{dataset_id}", status_code=204, summary="Delete a dataset", responses=problems(404, 409, 503))
def delete_dataset(dataset_id: Id, services: ServicesDep) -> None:
    """Delete it with its images and its folder; refused while a job works on it."""
    services.datasets.delete(dataset_id)


@router.get("/{dataset_id}/images", summary="List a dataset's images", responses=problems(400, 404, 422, 503))
def list_dataset_images(
    dataset_id: Id,
    services: ServicesDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    class_name: ClassQuery = None,
    split: Split | None = None,
    decision: Decision = "kept",
) -> Page[ImageRead]:
    """Newest first; of one class or split if given. Those that the filter rejected come with `decision=rejected`."""
    services.datasets.read(dataset_id)
    return services.images.page(
        limit, cursor, dataset_id=dataset_id, class_name=class_name, split=split, decision=decision
    )
