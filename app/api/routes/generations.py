"""Generations and stored images: list, read, delete. Routes run on pool threads and call services only."""

import asyncio
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import Field
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
from app.api.responses import bytes_type, conditional, not_modified, small_copy_headers
from app.schemas.common import Storable
from app.schemas.generations import GenerationPage, GenerationRead
from app.schemas.images import ImageMetadata, ImagePage
from app.schemas.response_docs import BYTES, IMAGE_TYPES, binary, file
from app.services.images.filters import ImageFilters
from app.services.images.thumbnails import MAX_WIDTH, MEDIA_TYPE, MIN_WIDTH

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


@router.get(
    "/generations/{generation_id}/grid.png",
    summary="Fetch a sheet of a generation's images",
    response_class=Response,
    responses={200: {"description": "The sheet.", "content": binary("image/png", BYTES)}, **problems(404, 410, 503)},
)
def get_generation_grid(generation_id: GenerationId, request: Request, services: ServicesDep) -> Response:
    """All images in their order, from left to right and from the top; at most 2,048 pixels wide and high."""
    return Response(services.sheets.read(generation_id), media_type=bytes_type(request, "image/png"))


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
    prompt: Annotated[
        Annotated[str, Field(max_length=200), Storable] | None,
        Query(description="Words that the prompt contains, in any order; the first eight count."),
    ] = None,
    model: Annotated[
        Annotated[str, Field(max_length=64), Storable] | None,
        Query(description="Name of the model pack that generated it."),
    ] = None,
) -> ImagePage:
    """Newest first; of one dataset, class or split if given.

    With `prompt` or `model`, a page searches the next 5,000 images: it may be short, or empty, and still have a
    `next_cursor`, from which the search goes on.
    """
    filters = ImageFilters(prompt=prompt, model=model)
    return services.images.page(
        limit, cursor, caller, dataset_id=dataset_id, class_name=class_name, split=split, filters=filters
    )


@router.get(
    "/images/{image_id}",
    summary="Fetch an image",
    response_class=Response,
    responses=file("The image's file, or a small copy of it.", IMAGE_TYPES, 404, 410, 416, 422, 503),
    dependencies=[CONDITIONAL, RANGED],
)
async def get_image(
    image_id: ImageId,
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    width: Annotated[
        int | None,
        Query(
            ge=MIN_WIDTH,
            le=MAX_WIDTH,
            description="A small copy instead, WebP, at most this wide and four times as high; never enlarged. It is "
            "served whole.",
        ),
    ] = None,
) -> Response:
    """The bytes; they never change under this id. Ranges and `If-None-Match` are served."""
    if width is None:
        return conditional(request, await asyncio.to_thread(services.images.file, image_id))
    small = await asyncio.to_thread(services.thumbnails.find, image_id, width)
    headers = small_copy_headers(small.tag)
    if unchanged := not_modified(request, headers):
        return unchanged
    data = small.data
    if data is None:
        make = partial(services.thumbnails.make, small)
        data = await services.pools.thumbnails.run(make, owner=caller.id, caller=caller.id)
    return Response(data, headers=headers, media_type=bytes_type(request, MEDIA_TYPE))


@router.get(
    "/images/{image_id}/metadata",
    summary="Read an image's lineage",
    response_description="The image's record and its lineage.",
    responses=problems(404, 503),
)
def get_image_metadata(image_id: ImageId, services: ServicesDep) -> ImageMetadata:
    """How the image came to be."""
    return services.images.read(image_id)
