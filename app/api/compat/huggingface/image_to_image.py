"""`POST /hf/image-to-image`. Runs on the event loop."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.compat.drawing import sides_of
from app.api.compat.huggingface.schemas import ImageToImageBody, ImageToImageParameters
from app.api.compat.huggingface.text_to_image import IMAGE, NAMES, answer, native_values
from app.api.compat.notes import Notes
from app.api.compat.pictures import NO_GUIDANCE, NO_PROMPT, Picture, picture_in, picture_of, size_for
from app.api.deps import Services, ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.forms import media_type_of
from app.api.parsing.json_bodies import parse_json, read_bytes
from app.api.parsing.picture_bodies import JSON_BOUNDS, JSON_BYTES
from app.schemas.response_docs import BYTES, JSON, binary

router = APIRouter(prefix="/hf", tags=["huggingface"], generate_unique_id_function=operation_id)

# The client's names of fields by ours.
_NAMES = {
    **NAMES,
    "prompt": "parameters/prompt",
    "strength": "parameters/strength",
    "mask": "parameters/mask_image",
    "init_image": "inputs",
}
_BODY = {
    "required": True,
    "content": {JSON: {"schema": {"$ref": "#/components/schemas/ImageToImageBody"}}, **binary(BYTES)},
}


@router.post(
    "/image-to-image",
    summary="Change an image",
    response_class=Response,
    responses=IMAGE,
    openapi_extra={"requestBody": _BODY},
    max_body_size=JSON_BYTES,
)
async def image_to_image(request: Request, services: ServicesDep, caller: CallerDep) -> Response:
    """Draw as `/generate/image` does with `init_image`: the same seed and settings give the same bytes.

    The image is `inputs` of a JSON body, or a body of another type. A client that leaves cancels its request.
    """
    picture, asked, notes = *await _read(request, services, caller), Notes()
    target = asked.target_size
    wanted = (asked.width, asked.height) if target is None else (target.width, target.height)
    size = size_for(sides_of(services), picture, wanted, notes)
    values: dict[str, Any] = {
        **native_values(asked, size, notes),
        "prompt": asked.prompt or NO_PROMPT,
        "init_image": picture.source,
        "strength": asked.strength,
    }
    if asked.prompt is None and asked.guidance_scale is None:
        values["guidance_scale"] = NO_GUIDANCE
    if asked.mask_image is not None:
        values["mask"] = (await picture_in(services, asked.mask_image, "#/parameters/mask_image", caller)).source
    return await answer(request, values, services, caller, notes, names=_NAMES)


async def _read(request: Request, services: Services, caller: Caller) -> tuple[Picture, ImageToImageParameters]:
    """Return the image of a request and its parameters; a body that is not JSON is the image."""
    data = await read_bytes(request, JSON_BYTES)
    if media_type_of(request) != JSON:
        return await picture_of(data), ImageToImageParameters()
    body = await parse_json(request, data, ImageToImageBody, JSON_BOUNDS)
    picture = await picture_in(services, body.inputs, "#/inputs", caller)
    return picture, body.parameters or ImageToImageParameters()
