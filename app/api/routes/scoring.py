"""`POST /clip-score` and `POST /classify`, with JSON or multipart bodies. Run on the event loop; import no engine."""

from typing import Any, TypeVar

from fastapi import APIRouter, Request

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.deps import Services, ServicesDep
from app.api.disconnects import unless_left
from app.api.forms import MAX_FORM_BYTES, media_type_of, read_form, unsupported
from app.api.json_bodies import JsonBounds, parse_json, read_bytes
from app.api.openapi import problems
from app.error_codes import ErrorCode
from app.errors import Invalid
from app.schemas.judging import (
    MAX_IMAGES,
    ClassificationRead,
    ClassificationsRead,
    ClassifyRequest,
    ClipScoreRead,
    ClipScoreRequest,
    ClipScoresRead,
    JudgedImages,
)
from app.services.scoring import Upload, label_warnings

router = APIRouter(tags=["judging"])
Body = TypeVar("Body", bound=JudgedImages)

# One image in base64 and little else; labels may contain many commas and colons, which count as values.
JSON = JsonBounds(num_bytes=30_000_000, num_values=65_536, num_members=65_536)

ERRORS = problems(400, 408, 409, 410, 413, 415, 422, 503)
_FILE = {"type": "string", "contentMediaType": "application/octet-stream", "description": "PNG, JPEG or WebP."}


def _body(model: str, fields: dict[str, Any], required: list[str]) -> dict[str, Any]:
    form = {
        "type": "object",
        "additionalProperties": False,
        "required": required,
        "properties": {
            "image": _FILE,
            "images": {"type": "array", "items": _FILE, "maxItems": MAX_IMAGES, "description": "Several images."},
            **fields,
        },
    }
    content = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


_LABEL = {"type": "string", "minLength": 1, "maxLength": 200}
_CLIP_FIELDS = {
    "labels": {"type": "array", "items": _LABEL, "minItems": 1, "maxItems": 256, "description": "Repeat the field."},
    "template": {"type": "string", "maxLength": 200, "description": "Text with `{}`, which each label replaces."},
}
_CLASSIFY_FIELDS = {
    "top_k": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 1_000, "default": 5},
    "model": {
        "type": "string",
        "minLength": 1,
        "maxLength": 64,
        "description": "Id or name of a trained model, or `photo`.",
    },
    "explain": {"type": "boolean", "default": False, "description": "Return `explanation_png_b64`, of one image."},
}


@router.post(
    "/clip-score",
    summary="Score an image against labels with CLIP",
    responses=ERRORS,
    openapi_extra=_body("ClipScoreRequest", _CLIP_FIELDS, ["labels"]),
    max_body_size=MAX_FORM_BYTES,
)
async def score_image(request: Request, services: ServicesDep, caller: CallerDep) -> ClipScoreRead | ClipScoresRead:
    """Return softmax, logits and cosines in the order of the labels; several images give `results`.

    `curl -F image=@fox.png -F labels=fox -F labels=dog http://127.0.0.1:8000/clip-score`

    A single label always has the probability 1.0; the response then has the warning `single_label`.
    """
    uploads, body, several = await _read(request, services, caller, ClipScoreRequest)
    results = await services.judging.score(uploads, body, caller)
    model, warnings = services.judging.pack_ref(), label_warnings(body.labels)
    if several:
        return ClipScoresRead(model=model, results=results, warnings=warnings)
    return ClipScoreRead(model=model, scores=results[0].scores, warnings=warnings)


@router.post(
    "/classify",
    summary="Classify an image",
    responses=ERRORS,
    openapi_extra=_body("ClassifyRequest", _CLASSIFY_FIELDS, []),
    max_body_size=MAX_FORM_BYTES,
)
async def classify_image(
    request: Request, services: ServicesDep, caller: CallerDep
) -> ClassificationRead | ClassificationsRead:
    """Return the most probable classes of the pretrained classifier, of `photo` or of a trained model.

    Several images give `results`. With `explain`, one image gives `explanation_png_b64` too.

    `curl -F image=@fox.png -F top_k=3 http://127.0.0.1:8000/classify`
    """
    uploads, body, several = await _read(request, services, caller, ClassifyRequest)
    if body.explain:
        if several:
            detail = "One image is explained at a time. Send it as image, image_id or image_b64."
            raise Invalid.field("#/explain", detail, ErrorCode.EXPLAINS_ONE_IMAGE)
        model, result, picture = await unless_left(request, services.judging.explain(uploads[0], body, caller))
        return ClassificationRead(model=model, predictions=result.predictions, explanation_png_b64=picture)
    model, results = await services.judging.classify(uploads, body, caller)
    if several:
        return ClassificationsRead(model=model, results=results)
    return ClassificationRead(model=model, predictions=results[0].predictions)


async def _read(
    request: Request, services: Services, caller: Caller, model: type[Body]
) -> tuple[list[Upload], Body, bool]:
    """Return the images, the fields, and whether the response has `results`."""
    media_type = media_type_of(request)
    if media_type == "application/json":
        body = await parse_json(request, await read_bytes(request, JSON.num_bytes), model, JSON)
        return await services.judging.uploads_of(body, caller), body, body.image_ids is not None
    if media_type == "multipart/form-data":
        uploads, body = await read_form(request, model, lists=["labels", "image_ids"])
        if body.image_id or body.image_b64 or body.image_ids:
            raise Invalid("Send image files in a form, ids and base64 in JSON.", code=ErrorCode.ONE_IMAGE_SOURCE)
        return uploads, body, len(uploads) > 1 or uploads[0].pointer != "#/image"
    raise unsupported()
