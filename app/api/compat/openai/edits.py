"""`/v1/images/edits` and `/v1/images/variations`: images from images, as forms with files. Runs on the event loop."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from fastapi import APIRouter, Request
from starlette.datastructures import FormData, UploadFile

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.compat.drawing import native_request, sides_of
from app.api.compat.notes import Notes
from app.api.compat.openai import images
from app.api.compat.openai.schemas import EditBody, ImagesRead, VariationBody
from app.api.compat.pictures import NO_GUIDANCE, NO_PROMPT, picture_of, size_for
from app.api.deps import Services, ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.forms import media_type_of, open_form, text_fields, validate
from app.api.parsing.picture_bodies import PICTURES_BODY
from app.error_codes import ErrorCode
from app.errors import Invalid, UnsupportedBody

router = APIRouter(prefix="/v1", tags=["openai"], generate_unique_id_function=operation_id)
Body = TypeVar("Body", bound=EditBody)

_MULTIPART = "multipart/form-data"
_IMAGES = ("image", "image[]")
# As many as OpenAI takes, and a mask.
_MAX_FILES = 17
_NUMBERS = frozenset(
    {"n", "seed", "steps", "num_inference_steps", "guidance_scale", "strength", "output_compression", "stream"}
    | {"partial_images"}
)
# The client's names of fields by ours.
_NAMES = {**images.NAMES, "init_image": "image"}
# How much of an image is repainted where nobody says so: all of a mask, half of what is varied.
_MASK_STRENGTH, _VARIATION_STRENGTH = 1.0, 0.6


class _Files(NamedTuple):
    """The files of a form."""

    image: bytes
    mask: bytes | None


def _form(model: str, *files: str) -> dict[str, Any]:
    binary = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    pictures = {"type": "object", "properties": dict.fromkeys(files, binary), "required": ["image"]}
    schema = {"allOf": [{"$ref": f"#/components/schemas/{model}"}, pictures]}
    return {"requestBody": {"required": True, "content": {_MULTIPART: {"schema": schema}}}}


@router.post(
    "/images/edits",
    summary="Edit an image",
    response_model=ImagesRead,
    response_description="The images; with `stream`, server-sent events.",
    openapi_extra=_form("EditBody", "image", "mask"),
    max_body_size=PICTURES_BODY,
)
async def edit_image(request: Request, services: ServicesDep, caller: CallerDep) -> Any:
    """Draw as `/generate` does with `init_image`.

    The transparent pixels of `mask`, or else of the image, are repainted; without transparent pixels all of the image.
    """
    files, body, notes = await _read(request, EditBody)
    masking, pointer = (files.image, "#/image") if files.mask is None else (files.mask, "#/mask")
    part = await services.sources.transparent_part(masking, pointer, caller)
    if part is None and files.mask is not None:
        detail = "The mask has no transparent pixels, which are those that are repainted."
        raise Invalid.field("#/mask", detail, ErrorCode.INVALID_REQUEST)
    values: dict[str, Any] = {"strength": body.strength or (None if part is None else _MASK_STRENGTH)}
    if part is not None:
        values["mask"] = (await picture_of(part)).source
    return await _draw(request, services, caller, files.image, body, values, notes, kind="image_edit")


@router.post(
    "/images/variations",
    summary="Vary an image",
    response_model=ImagesRead,
    response_description="The images.",
    openapi_extra=_form("VariationBody", "image"),
    max_body_size=PICTURES_BODY,
)
async def vary_image(request: Request, services: ServicesDep, caller: CallerDep) -> Any:
    """Draw as `/generate` does with `init_image`, without guidance unless the form has a `prompt`."""
    files, body, notes = await _read(request, VariationBody)
    guidance = body.guidance_scale if body.guidance_scale is not None or body.prompt else NO_GUIDANCE
    values = {
        "prompt": body.prompt or NO_PROMPT,
        "guidance_scale": guidance,
        "strength": body.strength or _VARIATION_STRENGTH,
    }
    return await _draw(request, services, caller, files.image, body, values, notes, kind="image_variation")


async def _draw(
    request: Request,
    services: Services,
    caller: Caller,
    image: bytes,
    body: EditBody,
    values: Mapping[str, Any],
    notes: Notes,
    *,
    kind: str,
) -> Any:
    picture = await picture_of(image)
    model = images.model_of(services, body)
    size = size_for(sides_of(services, model), picture, images.size_of(body.size), notes)
    fields = {**images.native_values(body, size), "model": model, "init_image": picture.source, **values}
    native = native_request(fields, _NAMES)
    return await images.answer(request, body, native, services, caller, notes, kind=kind, names=_NAMES)


async def _read(request: Request, model: type[Body]) -> tuple[_Files, Body, Notes]:
    """Return the files and the text fields of a form."""
    if media_type_of(request) != _MULTIPART:
        raise UnsupportedBody("Send multipart/form-data.")
    async with open_form(request, max_files=_MAX_FILES) as form:
        found = _uploads(form)
        texts = text_fields(form, files=(*_IMAGES, "mask"))
        pictures = [part for name, part in found if name in _IMAGES]
        masks = [part for name, part in found if name == "mask"]
        if not pictures:
            raise Invalid.field("#/image", "An image file is missing. Send it as `image`.", ErrorCode.MISSING)
        files = _Files(await pictures[0].read(), await masks[0].read() if masks else None)
    body = validate(model, {name: _value(name, text) for name, text in texts.items()})
    notes = images.unused(body)
    if len(pictures) > 1:
        notes.unused("image[]", "The first image is the one that is changed.")
    return files, body, notes


def _uploads(form: FormData) -> list[tuple[str, UploadFile]]:
    return [(name, part) for name, part in form.multi_items() if isinstance(part, UploadFile)]


def _value(name: str, text: str) -> Any:
    """Return a form's text as the number or switch that it is; the model refuses other texts."""
    if name not in _NUMBERS:
        return text
    try:
        return json.loads(text.lower())
    except (ValueError, RecursionError):
        return text
