"""`POST /v1/embeddings`: CLIP's embeddings of texts and of images. Runs on the event loop."""

import base64
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.compat.data_uris import upload_of
from app.api.compat.openai.models import CLIP_ID
from app.api.compat.openai.schemas import EmbeddingsBody, EmbeddingsRead
from app.api.deps import Services, ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.json_bodies import JsonBounds, parse_json, read_bytes
from app.api.serving.disconnects import unless_left
from app.error_codes import ErrorCode
from app.errors import Invalid
from app.schemas.judging import MAX_IMAGES

router = APIRouter(prefix="/v1", tags=["openai"], generate_unique_id_function=operation_id)

_BOUNDS = JsonBounds(num_bytes=30_000_000, num_values=65_536, num_members=65_536)
# Of a text, in characters; 77 tokens of it count.
_MAX_CHARS = 20_000
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/EmbeddingsBody"}}},
    }
}


@router.post(
    "/embeddings",
    summary="Embed texts or images with CLIP",
    response_model=EmbeddingsRead,
    response_description="The embeddings.",
    openapi_extra=_BODY,
    max_body_size=_BOUNDS.num_bytes,
)
async def create_embeddings(request: Request, services: ServicesDep, caller: CallerDep) -> Any:
    """Return embeddings of length 1, of texts and images in one space; 77 tokens of a text count.

    Images are data URIs, with `modality: image`. A URL is refused: the node fetches none.
    """
    data = await read_bytes(request, _BOUNDS.num_bytes)
    body = await parse_json(request, data, EmbeddingsBody, _BOUNDS)
    _check(body)
    rows = await unless_left(request, _embed(services, body, caller))
    if body.dimensions is not None and body.dimensions != len(rows[0]):
        detail = f"CLIP's embeddings have {len(rows[0])} dimensions. Leave dimensions out."
        raise Invalid.field("#/dimensions", detail, ErrorCode.INVALID_REQUEST)
    return JSONResponse(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _encoded(row, body.encoding_format)}
                for index, row in enumerate(rows)
            ],
            "model": CLIP_ID,
            "usage": {"prompt_tokens": 0, "total_tokens": 0},
        }
    )


async def _embed(services: Services, body: EmbeddingsBody, caller: Caller) -> Sequence[Any]:
    if body.modality != "image":
        return await services.embeddings.texts(body.input, caller)
    uploads = [await upload_of(services, text, f"#/input/{i}", caller) for i, text in enumerate(body.input)]
    return await services.embeddings.images(uploads, caller)


def _check(body: EmbeddingsBody) -> None:
    """Check the inputs by what they are.

    Raises:
        Invalid: There are too many images, or a text is too long.
    """
    if body.modality == "image":
        if len(body.input) > MAX_IMAGES:
            raise Invalid.field("#/input", f"Send at most {MAX_IMAGES} images.", ErrorCode.TOO_MANY)
        return
    for index, text in enumerate(body.input):
        if len(text) > _MAX_CHARS:
            detail = f"A text must have at most {_MAX_CHARS} characters. For an image, set modality to image."
            raise Invalid.field(f"#/input/{index}", detail, ErrorCode.TOO_LONG)


def _encoded(row: Any, encoding_format: str | None) -> list[float] | str:
    """Return an embedding, (D,), as numbers or as base64 of little-endian float32."""
    values = row.astype("<f4")
    return base64.b64encode(values.tobytes()).decode() if encoding_format == "base64" else values.tolist()
