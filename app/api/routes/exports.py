"""Routes of dataset exports: version, zips, WebDataset shards, COCO, Croissant. All are built on the exports' pool."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from app.api.access.ids import DatasetId
from app.api.deps import CONDITIONAL, RANGED, ServicesDep, SplitQuery
from app.api.openapi import problems
from app.api.responses import archive_response
from app.schemas.common import Split
from app.schemas.croissant import CroissantRead
from app.schemas.exports import DatasetVersionRead, SamplesPerShard, ShardsRead
from app.schemas.response_docs import file, json_file

router = APIRouter(prefix="/datasets/{dataset_id}", tags=["datasets"])

ShardIndex = Annotated[int, Path(ge=0, le=100_000, description="Number of the shard, from 0.")]
SamplesQuery = Annotated[SamplesPerShard, Query()]
_ERRORS = (404, 409, 410, 416, 422, 503)


class JsonLdResponse(JSONResponse):
    """JSON under the media type of JSON-LD."""

    media_type = "application/ld+json"


@router.get(
    "/version",
    summary="Read a dataset's version",
    response_description="The hash and the counts.",
    responses=problems(404, 503),
)
async def get_dataset_version(dataset_id: DatasetId, services: ServicesDep) -> DatasetVersionRead:
    """Return a hash of the dataset's content, which train jobs record."""
    return await services.pools.exports.run(partial(services.exports.version, dataset_id))


@router.get(
    "/archive.zip",
    summary="Download a dataset",
    response_class=Response,
    responses=file("The archive.", ["application/zip"], *_ERRORS),
    dependencies=[CONDITIONAL, RANGED],
)
async def get_dataset_archive(dataset_id: DatasetId, request: Request, services: ServicesDep) -> Response:
    """Return a zip: images in `{split}/{class}/`, `metadata.jsonl` per split, `dataset.json` and a dataset card.

    The archive has the current content; the request is refused while images are being generated. Equal content gives
    equal bytes, so an interrupted download can be resumed: `curl -C - -H 'If-Range: "<etag>"' -o fox-dog.zip`. If the
    dataset is deleted during the download, the archive ends before its announced length.

    The `recipe` in `dataset.json` is a body of `POST /datasets` that generates the same images again.
    """
    pool = services.pools.exports
    archive = await pool.run(partial(services.exports.archive, dataset_id))
    return archive_response(request, archive, pool)


@router.get(
    "/archive/{split}.zip",
    summary="Download a split of a dataset",
    response_class=Response,
    responses=file("The archive of the split.", ["application/zip"], *_ERRORS),
    dependencies=[CONDITIONAL, RANGED],
)
async def get_dataset_split_archive(
    dataset_id: DatasetId, split: Annotated[Split, Path()], request: Request, services: ServicesDep
) -> Response:
    """Return a zip of one split, with the paths of the whole archive, and `dataset.json`; without the card.

    Hugging Face `datasets` makes one split of one zip, so each split has a zip of its own. 404 if it has no images.
    """
    pool = services.pools.exports
    archive = await pool.run(partial(services.exports.archive, dataset_id, split))
    return archive_response(request, archive, pool)


@router.get(
    "/coco.json",
    summary="Download a dataset's COCO annotations",
    response_class=Response,
    responses=json_file("The annotations.", "CocoRead", *_ERRORS),
    dependencies=[CONDITIONAL, RANGED],
)
async def get_dataset_coco(
    dataset_id: DatasetId, request: Request, services: ServicesDep, split: SplitQuery = None
) -> Response:
    """Return the class of each image as a COCO annotation of the whole image, of all images or of one split.

    `file_name` is the path in the unpacked archive, and a category's `id` is the class's index in the dataset.
    """
    pool = services.pools.exports
    annotations = await pool.run(partial(services.exports.coco, dataset_id, split))
    return archive_response(request, annotations, pool)


@router.get(
    "/croissant.json",
    summary="Describe a dataset in Croissant",
    response_class=JsonLdResponse,
    response_description="The description.",
    response_model_exclude_none=True,
    responses=problems(404, 409, 410, 503),
)
async def get_dataset_croissant(dataset_id: DatasetId, request: Request, services: ServicesDep) -> CroissantRead:
    """Return a description in Croissant 1.1 (JSON-LD), which names the archive with its hash, and every column.

    URLs in it are absolute, with the host of the request. The hash is computed for the first request of each content,
    which reads all files.
    """
    base_url = str(request.base_url).rstrip("/")
    return await services.pools.exports.run(partial(services.exports.croissant, dataset_id, base_url))


@router.get(
    "/shards",
    summary="List a dataset's WebDataset shards",
    response_description="The shards.",
    responses=problems(404, 409, 422, 503),
)
async def list_dataset_shards(
    dataset_id: DatasetId, services: ServicesDep, samples_per_shard: SamplesQuery = 1_000
) -> ShardsRead:
    """Return the shards. A shard has images of one split and of all classes; equal parameters give equal shards."""
    return await services.pools.exports.run(partial(services.exports.shards, dataset_id, samples_per_shard))


@router.get(
    "/shards/{index}.tar",
    summary="Download a WebDataset shard",
    response_class=Response,
    responses=file("The shard.", ["application/x-tar"], *_ERRORS),
    dependencies=[CONDITIONAL, RANGED],
)
async def get_dataset_shard(
    dataset_id: DatasetId,
    index: ShardIndex,
    request: Request,
    services: ServicesDep,
    samples_per_shard: SamplesQuery = 1_000,
) -> Response:
    """Return a tar file. Each sample is an image, a `.json` with its metadata and a `.cls` with the index of its class.

    Every image has the ending `image_key` of `/datasets/{id}/shards`, also an uploaded one of another format. The first
    file, `__dataset.json__`, is the recipe of the whole dataset; loaders skip it.
    """
    pool = services.pools.exports
    shard = await pool.run(partial(services.exports.shard, dataset_id, index, samples_per_shard))
    return archive_response(request, shard, pool)
