"""Generations and stored images: list, read, delete. Routes run on pool threads and call services only."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.access.ids import CallerDep, GenerationId, ImageId
from app.api.deps import ClassQuery, Cursor, DatasetIdQuery, Limit, ServicesDep
from app.api.openapi import problems
from app.api.responses import conditional
from app.schemas.common import Page, Split
from app.schemas.generations import GenerationRead, ImageMetadata, ImageRead

router = APIRouter(tags=["images"])

_BYTES = {"schema": {"type": "string", "format": "binary"}}
_FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "The bytes.", "content": dict.fromkeys(("image/png", "image/jpeg", "image/webp"), _BYTES)},
    206: {"description": "The range asked for."},
    304: {"description": "The client has it already (`If-None-Match`)."},
    **problems(404, 410, 416, 503),
}


@router.get("/generations", summary="List generations", responses=problems(400, 422, 503))
def list_generations(
    services: ServicesDep, caller: CallerDep, limit: Limit = 20, cursor: Cursor = None
) -> Page[GenerationRead]:
    """Newest first."""
    return services.generations.page(limit, cursor, caller)


@router.get("/generations/{generation_id}", summary="Read a generation", responses=problems(404, 503))
def get_generation(generation_id: GenerationId, services: ServicesDep) -> GenerationRead:
    """Everything that made its images, and where they are."""
    return services.generations.read(generation_id)


@router.delete(
    "/generations/{generation_id}", status_code=204, summary="Delete a generation", responses=problems(404, 503)
)
def delete_generation(generation_id: GenerationId, services: ServicesDep) -> None:
    """Delete it with its images and their files."""
    services.generations.delete(generation_id)


@router.get("/images", summary="List stored images", responses=problems(400, 422, 503))
def list_images(
    services: ServicesDep,
    caller: CallerDep,
    limit: Limit = 20,
    cursor: Cursor = None,
    dataset_id: DatasetIdQuery = None,
    class_name: ClassQuery = None,
    split: Split | None = None,
) -> Page[ImageRead]:
    """Newest first; of one dataset, class or split if given."""
    return services.images.page(limit, cursor, caller, dataset_id=dataset_id, class_name=class_name, split=split)


@router.get("/images/{image_id}", summary="Fetch an image", response_class=Response, responses=_FILE_RESPONSES)
def get_image(image_id: ImageId, request: Request, services: ServicesDep) -> Response:
    """The bytes; they never change under this id. Ranges and `If-None-Match` are served."""
    return conditional(request, services.images.file(image_id))


@router.get("/images/{image_id}/metadata", summary="Read an image's lineage", responses=problems(404, 503))
def get_image_metadata(image_id: ImageId, services: ServicesDep) -> ImageMetadata:
    """How the image came to be."""
    return services.images.read(image_id)
