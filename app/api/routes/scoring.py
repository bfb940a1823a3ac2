"""`POST /clip-score` and `POST /classify`: JSON bodies, and forms under `/files`. Run on the event loop; no engine.

The paths without `/files` take the forms too, as curl's users send them. The OpenAPI file tells each operation with one
type of body: of two, some generators of clients drop one, others write code that does not run.
"""

from typing import Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.deps import Services, ServicesDep
from app.api.openapi import problems
from app.api.parsing.forms import MAX_FORM_BYTES, media_type_of, read_form
from app.api.parsing.json_bodies import JsonBounds, parse_json, read_bytes
from app.api.serving.disconnects import unless_left
from app.error_codes import ErrorCode
from app.errors import Invalid, UnsupportedBody
from app.schemas.forms import FORM_ENCODING, ClassifyForm, ClipScoreForm
from app.schemas.judging import (
    ClassificationAnswer,
    ClassificationRead,
    ClassificationsRead,
    ClassifyRequest,
    ClipScoreAnswer,
    ClipScoreRead,
    ClipScoreRequest,
    ClipScoresRead,
    JudgedImages,
)
from app.services.scoring.service import Upload, label_warnings

router = APIRouter(tags=["judging"])
Body = TypeVar("Body", bound=JudgedImages)

# One image in base64 and little else; labels may contain many commas and colons, which count as values.
JSON = JsonBounds(num_bytes=30_000_000, num_values=65_536, num_members=65_536)

_MULTIPART = "multipart/form-data"
ERRORS = problems(400, 408, 409, 410, 413, 415, 422, 503)


def _json(model: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}}}
    return {"requestBody": {"required": True, "content": content}}


def _form(model: type[BaseModel]) -> dict[str, Any]:
    encoding = {name: FORM_ENCODING[name] for name in model.model_fields if name in FORM_ENCODING}
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {_MULTIPART: {"schema": schema, "encoding": encoding}}}}


@router.post(
    "/clip-score",
    summary="Score an image against labels with CLIP",
    response_description="The scores.",
    responses=ERRORS,
    openapi_extra=_json("ClipScoreRequest"),
    max_body_size=MAX_FORM_BYTES,
)
async def score_image(request: Request, services: ServicesDep, caller: CallerDep) -> ClipScoreAnswer:
    """Return softmax, logits and cosines in the order of the labels; several images give `results`.

    A single label always has the probability 1.0; the response then has the warning `single_label`. Files may be sent
    here too, in the form of `/clip-score/files`.
    """
    uploads, body, several = await _read(request, services, caller, ClipScoreRequest)
    return await _scores(services, caller, uploads, body, several=several)


@router.post(
    "/clip-score/files",
    summary="Score image files against labels with CLIP",
    response_description="The scores.",
    responses=ERRORS,
    openapi_extra=_form(ClipScoreForm),
    max_body_size=MAX_FORM_BYTES,
)
async def score_image_files(request: Request, services: ServicesDep, caller: CallerDep) -> ClipScoreAnswer:
    """Return the scores of files, as `/clip-score` does.

    `curl -F image=@fox.png -F labels=fox -F labels=dog http://127.0.0.1:8000/clip-score/files`
    """
    uploads, body, several = await _read_form(request, ClipScoreRequest)
    return await _scores(services, caller, uploads, body, several=several)


@router.post(
    "/classify",
    summary="Classify an image",
    response_description="The predictions.",
    responses=ERRORS,
    openapi_extra=_json("ClassifyRequest"),
    max_body_size=MAX_FORM_BYTES,
)
async def classify_image(request: Request, services: ServicesDep, caller: CallerDep) -> ClassificationAnswer:
    """Return the most probable classes of the pretrained classifier, of `photo` or of a trained model.

    Several images give `results`. With `explain`, one image gives `explanation_png_b64` too. With `nearest`, a trained
    model also names its training images that are most similar: 409 `training_images_gone` or `features_not_cached`
    where that cannot be told. Files may be sent here too, in the form of `/classify/files`.
    """
    uploads, body, several = await _read(request, services, caller, ClassifyRequest)
    return await _predictions(request, services, caller, uploads, body, several=several)


@router.post(
    "/classify/files",
    summary="Classify image files",
    response_description="The predictions.",
    responses=ERRORS,
    openapi_extra=_form(ClassifyForm),
    max_body_size=MAX_FORM_BYTES,
)
async def classify_image_files(request: Request, services: ServicesDep, caller: CallerDep) -> ClassificationAnswer:
    """Return the most probable classes of files, as `/classify` does.

    `curl -F image=@fox.png -F top_k=3 http://127.0.0.1:8000/classify/files`
    """
    uploads, body, several = await _read_form(request, ClassifyRequest)
    return await _predictions(request, services, caller, uploads, body, several=several)


async def _scores(
    services: Services, caller: Caller, uploads: list[Upload], body: ClipScoreRequest, *, several: bool
) -> ClipScoreAnswer:
    results = await services.judging.score(uploads, body, caller)
    model, warnings = services.judging.pack_ref(), label_warnings(body.labels)
    if several:
        return ClipScoresRead(model=model, results=results, warnings=warnings)
    return ClipScoreRead(model=model, scores=results[0].scores, warnings=warnings)


async def _predictions(
    request: Request,
    services: Services,
    caller: Caller,
    uploads: list[Upload],
    body: ClassifyRequest,
    *,
    several: bool,
) -> ClassificationAnswer:
    if body.explain:
        if several:
            detail = "One image is explained at a time. Send it as image, image_id or image_b64."
            raise Invalid.field("#/explain", detail, ErrorCode.EXPLAINS_ONE_IMAGE)
        model, result, picture = await unless_left(request, services.judging.explain(uploads[0], body, caller))
        return ClassificationRead(
            model=model, predictions=result.predictions, explanation_png_b64=picture, nearest=result.nearest
        )
    model, results = await services.judging.classify(uploads, body, caller)
    if several:
        return ClassificationsRead(model=model, results=results)
    return ClassificationRead(model=model, predictions=results[0].predictions, nearest=results[0].nearest)


async def _read(
    request: Request, services: Services, caller: Caller, model: type[Body]
) -> tuple[list[Upload], Body, bool]:
    """Return the images, the fields, and whether the response has `results`; of JSON or a form."""
    media_type = media_type_of(request)
    if media_type == "application/json":
        body = await parse_json(request, await read_bytes(request, JSON.num_bytes), model, JSON)
        return await services.judging.uploads_of(body, caller), body, body.image_ids is not None
    if media_type == _MULTIPART:
        return await _read_form(request, model)
    raise UnsupportedBody("Send application/json or multipart/form-data.")


async def _read_form(request: Request, model: type[Body]) -> tuple[list[Upload], Body, bool]:
    """Return the images, the fields, and whether the response has `results`; of a form."""
    if media_type_of(request) != _MULTIPART:
        raise UnsupportedBody("Send multipart/form-data.")
    uploads, body = await read_form(request, model, lists=["labels", "image_ids"])
    if body.image_id or body.image_b64 or body.image_ids:
        raise Invalid("Send image files in a form, ids and base64 in JSON.", code=ErrorCode.ONE_IMAGE_SOURCE)
    return uploads, body, len(uploads) > 1 or uploads[0].pointer != "#/image"
