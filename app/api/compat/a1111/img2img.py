"""`POST /sdapi/v1/img2img`: images from images, with or without a mask. Runs on the event loop."""

from typing import Any

from fastapi import APIRouter, Request

from app.api.access.ids import CallerDep
from app.api.compat.a1111 import txt2img
from app.api.compat.a1111.checkpoints import requested_checkpoint
from app.api.compat.a1111.schemas import Img2ImgBody, Txt2ImgRead
from app.api.compat.drawing import native_request, sides_of
from app.api.compat.notes import Notes
from app.api.compat.pictures import picture_in, size_for
from app.api.deps import ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.json_bodies import parse_json, read_bytes
from app.api.parsing.picture_bodies import JSON_BOUNDS, JSON_BYTES
from app.schemas.response_docs import JSON

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"], generate_unique_id_function=operation_id)

# The client's names of fields by ours.
_NAMES = {
    **txt2img.NAMES,
    "init_image": "init_images",
    "strength": "denoising_strength",
    "mask_invert": "inpainting_mask_invert",
}
# What the web UI calls "just resize", and "original".
_RESIZE, _ORIGINAL = 0, 1
_BODY = {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Img2ImgBody"}}}, "required": True}


@router.post(
    "/img2img",
    summary="Change an image",
    response_model=Txt2ImgRead,
    response_description="The images.",
    openapi_extra={"requestBody": _BODY},
    max_body_size=JSON_BYTES,
)
async def img2img(request: Request, services: ServicesDep, caller: CallerDep) -> Any:
    """Draw as `/generate` does with `init_image`: the same seed and settings give the same bytes.

    A client that leaves cancels its request, and so does `/sdapi/v1/interrupt`.
    """
    body = await parse_json(request, await read_bytes(request, JSON_BYTES), Img2ImgBody, JSON_BOUNDS)
    notes = _unused(body)
    picture = await picture_in(services, body.init_images[0], "#/init_images/0", caller)
    model = requested_checkpoint(request, services, body, caller)
    size = size_for(sides_of(services, model), picture, (body.width, body.height), notes)
    values = {
        **txt2img.native_values(body, size, notes),
        "model": model,
        "init_image": picture.source,
        "strength": body.denoising_strength,
    }
    if body.mask is not None:
        values |= {
            "mask": (await picture_in(services, body.mask, "#/mask", caller)).source,
            "mask_blur": body.mask_blur,
            "mask_invert": bool(body.inpainting_mask_invert),
        }
    native = native_request(values, _NAMES)
    return await txt2img.answer(request, body, native, services, caller, notes, names=_NAMES)


def _unused(body: Img2ImgBody) -> Notes:
    """Return notes on the fields that change the picture elsewhere and not here."""
    notes = Notes()
    if len(body.init_images) > 1:
        notes.unused("init_images", "The first image is the one that is changed.")
    if body.resize_mode not in (None, _RESIZE):
        notes.unused("resize_mode", "The image is resized, without cropping.")
    if body.mask is not None and body.inpainting_fill not in (None, _ORIGINAL):
        notes.unused("inpainting_fill", "The masked part begins with what it shows.")
    if body.mask is not None and body.inpaint_full_res:
        notes.unused("inpaint_full_res", "The whole image is drawn at its size.")
    return notes
