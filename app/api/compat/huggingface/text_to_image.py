"""`POST /hf/text-to-image`. Runs on the event loop."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.compat.drawing import draw, native_request, sides_of
from app.api.compat.huggingface.schemas import TextToImageBody, TextToImageParameters
from app.api.compat.notes import Notes
from app.api.compat.requests import drawn_size, noise_scheduler
from app.api.deps import Services, ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.json_bodies import PROMPT_BODY, JsonRoute
from app.api.responses import image_response, select_media_type
from app.image_spec import OutputFormat
from app.schemas.response_docs import IMAGE_TYPES, Responses, binary

router = APIRouter(prefix="/hf", tags=["huggingface"], route_class=JsonRoute, generate_unique_id_function=operation_id)

_FORMATS: dict[str, OutputFormat] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
_ANSWERS = {**{name: name for name in _FORMATS}, **dict.fromkeys(("", "*/*", "image/*"), "image/png")}
# The client's names of fields by ours.
NAMES = {
    "prompt": "inputs",
    **{
        name: f"parameters/{name}"
        for name in ("negative_prompt", "width", "height", "seed", "num_inference_steps", "guidance_scale")
    },
}
IMAGE: Responses = {200: {"description": "The image's file.", "content": binary(*IMAGE_TYPES)}}


@router.post(
    "/text-to-image",
    summary="Make an image from a prompt",
    response_class=Response,
    responses=IMAGE,
    max_body_size=PROMPT_BODY,
)
async def text_to_image(request: Request, body: TextToImageBody, services: ServicesDep, caller: CallerDep) -> Response:
    """Draw as `/generate/image` does: the same seed and settings give the same bytes.

    A client that leaves cancels its request.
    """
    asked, notes = body.parameters or TextToImageParameters(), Notes()
    size = drawn_size(sides_of(services), asked.width, asked.height, notes)
    values = {**native_values(asked, size, notes), "prompt": body.inputs}
    return await answer(request, values, services, caller, notes, names=NAMES)


def native_values(asked: TextToImageParameters, size: tuple[int, int], notes: Notes) -> dict[str, Any]:
    """Return the fields of the request of `/generate` that parameters stand for; those that are None have none."""
    width, height = size
    return {
        "negative_prompt": asked.negative_prompt,
        "width": width,
        "height": height,
        "num_inference_steps": asked.num_inference_steps,
        "guidance_scale": asked.guidance_scale,
        "scheduler": noise_scheduler(asked.scheduler, notes),
        "seed": asked.seed,
    }


async def answer(
    request: Request,
    values: Mapping[str, Any],
    services: Services,
    caller: Caller,
    notes: Notes,
    *,
    names: Mapping[str, str],
) -> Response:
    """Draw, and answer with the image's file; `names` has the client's names of fields by ours."""
    media_type = select_media_type(request.headers.get("accept", "*/*"), _ANSWERS)
    native = native_request({**values, "output_format": _FORMATS[media_type]}, names)
    generated = await draw(request, services, native, caller, names)
    notes.extend(generated.read.warnings)
    (image,), (data,) = generated.read.images, generated.files
    response = image_response(
        data,
        media_type,
        sha256=image.sha256,
        name=f"{image.id}.{image.format}",
        created_at=generated.read.created_at,
    )
    told = {"X-Foxhound-Image-Id": image.id, "X-Foxhound-Seed": str(image.seed), "Content-Location": image.url}
    response.headers.update({**told, **notes.headers()})
    return response
