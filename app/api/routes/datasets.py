"""Routes of datasets: create, extend, repair, list, read, delete, list images. The routes run on worker threads."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from app.api.access.ids import CallerDep, DatasetId
from app.api.deps import ClassQuery, CreatedAfter, Cursor, Id, Limit, NameQuery, ServicesDep, SplitQuery
from app.api.openapi import BODY_STATUSES, accepted, problems
from app.api.parsing.json_bodies import RECIPE_BODY, JsonRoute
from app.api.submissions import SubmissionDep
from app.schemas.common import Decision, ImageSource, ReviewState
from app.schemas.datasets import (
    DatasetCreate,
    DatasetExtend,
    DatasetPage,
    DatasetPlan,
    DatasetRead,
    DatasetRecipeRead,
    DatasetStatus,
)
from app.schemas.images import ImagePage, ImageRead, ImageReview
from app.schemas.jobs import RepairJob
from app.services.images.filters import ImageFilters

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=JsonRoute)

_Score = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
MinClipScore = Annotated[_Score | None, Query(description="Only images with at least this CLIP score.")]
MaxClipScore = Annotated[_Score | None, Query(description="Only images with at most this CLIP score.")]
DryRun = Annotated[bool, Query(description="Only return what would be generated; nothing is stored.")]


def _planned_or_accepted(verb: str, *statuses: int) -> dict[int | str, dict[str, Any]]:
    planned = {"description": f"With `dry_run`: what the request would {verb}.", "model": DatasetPlan}
    return {200: planned, **accepted("Accepted; `job_id` is the job that generates the images.", *statuses)}


def _plan_response(plan: DatasetPlan) -> Response:
    return JSONResponse(plan.model_dump(mode="json"))


def _located(response: Response, dataset: DatasetRead) -> DatasetRead:
    response.headers["Location"] = f"/datasets/{dataset.id}"
    return dataset


@router.post(
    "",
    status_code=202,
    summary="Create a dataset",
    response_model=DatasetRead,
    responses=_planned_or_accepted("generate", 410, *BODY_STATUSES),
    max_body_size=RECIPE_BODY,
)
def create_dataset(
    body: DatasetCreate,
    services: ServicesDep,
    response: Response,
    submission: SubmissionDep,
    dry_run: DryRun = False,
) -> DatasetRead | Response:
    """Generate the images of `train/{class}`, `validation/{class}` and `test/{class}` in a job.

    The same seed gives the same files.
    """
    if dry_run:
        return _plan_response(services.datasets.plan(body, submission.caller))
    return _located(response, services.datasets.create(body, submission))


@router.post(
    "/{dataset_id}/extend",
    status_code=202,
    summary="Extend a dataset",
    response_model=DatasetRead,
    responses=_planned_or_accepted("add", 404, *BODY_STATUSES),
)
def extend_dataset(
    dataset_id: DatasetId,
    body: DatasetExtend,
    services: ServicesDep,
    response: Response,
    submission: SubmissionDep,
    dry_run: DryRun = False,
) -> DatasetRead | Response:
    """Generate more images of each class by the dataset's own recipe, at the next positions of its seed sequence.

    10 images per class and an extension by 10 give the same files as 20 at once. Refused while a job is active on the
    dataset. Images that a failed or cancelled job did not generate are generated as well.
    """
    if dry_run:
        return _plan_response(services.extensions.plan(dataset_id, body, submission.caller))
    return _located(response, services.extensions.extend(dataset_id, body, submission))


@router.post(
    "/{dataset_id}/repair",
    status_code=202,
    summary="Repair a dataset",
    responses=accepted("Accepted as a job; its `result` lists what was restored.", 404),
)
def repair_dataset(
    dataset_id: DatasetId, services: ServicesDep, response: Response, submission: SubmissionDep
) -> RepairJob:
    """Check every file of the dataset and generate missing and damaged images again from their recorded seeds.

    The job's result counts the restored images. It lists images that were `redrawn`, because this node no longer
    generates the same bytes, and images that stay `unrestored`: an uploaded image cannot be generated; upload the same
    file again to restore it. Damaged files are moved to `.lost+found` in the data folder.
    """
    job = services.datasets.repair(dataset_id, submission)
    response.headers["Location"] = f"/jobs/{job.id}"
    return job


@router.get("", summary="List datasets", response_description="A page of datasets.", responses=problems(400, 422, 503))
def list_datasets(
    services: ServicesDep,
    caller: CallerDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    name: NameQuery = None,
    status: Annotated[DatasetStatus | None, Query(description="Of the datasets.")] = None,
    created_after: CreatedAfter = None,
) -> DatasetPage:
    """Return a page of datasets, newest first, of those that match."""
    return services.datasets.page(limit, cursor, caller, name=name, status=status, created_after=created_after)


@router.get(
    "/{dataset_id}", summary="Read a dataset", response_description="The dataset.", responses=problems(404, 503)
)
def get_dataset(dataset_id: DatasetId, services: ServicesDep) -> DatasetRead:
    """Return the classes with their counts, the status and the progress; the prompts are in the recipe."""
    return services.datasets.read(dataset_id)


@router.get(
    "/{dataset_id}/recipe",
    summary="Read a dataset's recipe",
    response_description="The recipe.",
    responses=problems(404, 503),
)
def get_dataset_recipe(dataset_id: DatasetId, services: ServicesDep) -> DatasetRecipeRead:
    """Return the recipe with all defaults filled in, as a body of `POST /datasets`.

    Under another name, it generates the same images.
    """
    return services.datasets.recipe(dataset_id)


@router.delete(
    "/{dataset_id}",
    status_code=204,
    summary="Delete a dataset",
    response_description="It is deleted.",
    responses=problems(404, 409, 503),
)
def delete_dataset(dataset_id: DatasetId, services: ServicesDep) -> None:
    """Delete the dataset with its images and its folder; refused while a job is active on it."""
    services.datasets.delete(dataset_id)


@router.get(
    "/{dataset_id}/images",
    summary="List a dataset's images",
    response_description="A page of images.",
    responses=problems(400, 404, 422, 503),
)
def list_dataset_images(
    dataset_id: DatasetId,
    services: ServicesDep,
    caller: CallerDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    class_name: ClassQuery = None,
    split: SplitQuery = None,
    decision: Annotated[Decision, Query()] = "kept",
    source: Annotated[ImageSource | None, Query(description="Of the images.")] = None,
    review: Annotated[ReviewState | None, Query()] = None,
    min_clip_score: MinClipScore = None,
    max_clip_score: MaxClipScore = None,
) -> ImagePage:
    """Return a page of images, newest first, of those that match.

    `decision=rejected` returns the images that the filter rejected instead. Images that a person rejected are listed
    with the others; `review` has the decision.
    """
    services.datasets.require(dataset_id)
    return services.images.page(
        limit,
        cursor,
        caller,
        dataset_id=dataset_id,
        class_name=class_name,
        split=split,
        decision=decision,
        filters=ImageFilters(source, review, min_clip_score, max_clip_score),
    )


@router.patch(
    "/{dataset_id}/images/{image_id}",
    summary="Review an image",
    response_description="The image with the decision.",
    responses=problems(400, 404, 409, *BODY_STATUSES),
)
def review_dataset_image(dataset_id: DatasetId, image_id: Id, body: ImageReview, services: ServicesDep) -> ImageRead:
    """Accept or reject an image of a dataset, or take the decision back.

    A rejected image keeps its file and its place, and leaves training, exports, reports and the version of the dataset.
    """
    return services.reviews.decide(dataset_id, image_id, body.review)
