"""Generations and stored images: list, read, delete. Routes run on pool threads and call services only."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.access.ids import CallerDep, GenerationId, ImageId
from app.api.deps import (
    CONDITIONAL,
    RANGED,
    ClassQuery,
    CreatedAfter,
    Cursor,
    DatasetIdQuery,
    Limit,
    ServicesDep,
    SplitQuery,
)
from app.api.openapi import problems
from app.api.responses import conditional
from app.schemas.generations import GenerationPage, GenerationRead
from app.schemas.images import ImageMetadata, ImagePage
from app.schemas.response_docs import IMAGE_TYPES, file

router = APIRouter(tags=["images"])


@router.get(
    "/generations",
    summary="List generations",
    response_description="A page of generations.",
    responses=problems(400, 422, 503),
)
def list_generations(
    services: ServicesDep,
    caller: CallerDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    created_after: CreatedAfter = None,
) -> GenerationPage:
    """Newest first."""
    return services.generations.page(limit, cursor, caller, created_after=created_after)


@router.get(
    "/generations/{generation_id}",
    summary="Read a generation",
    response_description="The generation.",
    responses=problems(404, 503),
)
def get_generation(generation_id: GenerationId, services: ServicesDep) -> GenerationRead:
    """Everything that made its images, and where they are."""
    return services.generations.read(generation_id)


@router.delete(
    "/generations/{generation_id}",
    status_code=204,
    summary="Delete a generation",
    response_description="It is deleted.",
    responses=problems(404, 503),
)
def delete_generation(generation_id: GenerationId, services: ServicesDep) -> None:
    """Delete it with its images and their files."""
    services.generations.delete(generation_id)


@router.get(
    "/images",
    summary="List stored images",
    response_description="A page of images.",
    responses=problems(400, 422, 503),
)
def list_images(
    services: ServicesDep,
    caller: CallerDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    dataset_id: DatasetIdQuery = None,
    class_name: ClassQuery = None,
    split: SplitQuery = None,
) -> ImagePage:
    """Newest first; of one dataset, class or split if given."""
    return services.images.page(limit, cursor, caller, dataset_id=dataset_id, class_name=class_name, split=split)


@router.get(
    "/images/{image_id}",
    summary="Fetch an image",
    response_class=Response,
    responses=file("The image's file.", IMAGE_TYPES, 404, 410, 416, 503),
    dependencies=[CONDITIONAL, RANGED],
)
def get_image(image_id: ImageId, request: Request, services: ServicesDep) -> Response:
    """The bytes; they never change under this id. Ranges and `If-None-Match` are served."""
    return conditional(request, services.images.file(image_id))


@router.get(
    "/images/{image_id}/metadata",
    summary="Read an image's lineage",
    response_description="The image's record and its lineage.",
    responses=problems(404, 503),
)
def get_image_metadata(image_id: ImageId, services: ServicesDep) -> ImageMetadata:
    """How the image came to be."""
    return services.images.read(image_id)
