"""`POST /hf/image-classification` and `/hf/zero-shot-image-classification`. Run on the event loop."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.compat.data_uris import upload_of
from app.api.compat.huggingface.schemas import (
    ClassificationBody,
    ClassificationParameters,
    LabelScoreRead,
    ZeroShotBody,
)
from app.api.compat.requests import naming
from app.api.deps import Services, ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.forms import media_type_of, validate
from app.api.parsing.json_bodies import JsonBounds, parse_json, read_bytes
from app.error_codes import ErrorCode
from app.errors import Invalid
from app.schemas.judging import ClassifyRequest, ClipScoreRequest
from app.schemas.response_docs import BYTES, JSON, binary
from app.services.scoring.service import Upload

router = APIRouter(prefix="/hf", tags=["huggingface"], generate_unique_id_function=operation_id)

_BOUNDS = JsonBounds(num_bytes=30_000_000, num_values=65_536, num_members=65_536)
_NAMES = {"top_k": "parameters/top_k", "model": "model"}
_ZERO_SHOT_NAMES = {"labels": "parameters/candidate_labels", "template": "parameters/hypothesis_template"}


def _body(model: str, *, raw: bool) -> dict[str, Any]:
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{model}"}}, **(binary(BYTES) if raw else {})}
    return {"requestBody": {"required": True, "content": content}}


@router.post(
    "/image-classification",
    summary="Classify an image",
    response_description="The most probable labels, most probable first.",
    openapi_extra=_body("ClassificationBody", raw=True),
    max_body_size=_BOUNDS.num_bytes,
)
async def image_classification(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    model: Annotated[str | None, Query(max_length=64, description="As in `/classify`.")] = None,
) -> list[LabelScoreRead]:
    """Classify as `/classify` does; the image is the body, whatever its type, or `inputs` of a JSON body."""
    upload, asked = await _image(request, services, caller)
    if asked.function_to_apply not in (None, "softmax"):
        detail = "The classifier gives probabilities. Leave function_to_apply out."
        raise Invalid.field("#/parameters/function_to_apply", detail, ErrorCode.INVALID_REQUEST)
    with naming(_NAMES):
        body = validate(ClassifyRequest, {"top_k": asked.top_k or 5, "model": model})
        _, [result] = await services.judging.classify([upload], body, caller)
    return [LabelScoreRead(label=one.label, score=one.probability) for one in result.predictions]


@router.post(
    "/zero-shot-image-classification",
    summary="Classify an image by labels of the request",
    response_description="The labels, most probable first.",
    openapi_extra=_body("ZeroShotBody", raw=False),
    max_body_size=_BOUNDS.num_bytes,
)
async def zero_shot_image_classification(
    request: Request, services: ServicesDep, caller: CallerDep
) -> list[LabelScoreRead]:
    """Score as `/clip-score` does."""
    body = await parse_json(request, await read_bytes(request, _BOUNDS.num_bytes), ZeroShotBody, _BOUNDS)
    upload = await upload_of(services, body.inputs, "#/inputs", caller)
    with naming(_ZERO_SHOT_NAMES):
        asked = {"labels": body.parameters.candidate_labels, "template": body.parameters.hypothesis_template}
        [result] = await services.judging.score([upload], validate(ClipScoreRequest, asked), caller)
    scores = [LabelScoreRead(label=one.label, score=one.probability) for one in result.scores]
    return sorted(scores, key=lambda one: -one.score)


async def _image(request: Request, services: Services, caller: Caller) -> tuple[Upload, ClassificationParameters]:
    """Return the image of a request and its parameters; a body that is not JSON is the image."""
    data = await read_bytes(request, _BOUNDS.num_bytes)
    if media_type_of(request) != JSON:
        return Upload(data, "#"), ClassificationParameters()
    body = await parse_json(request, data, ClassificationBody, _BOUNDS)
    return await upload_of(services, body.inputs, "#/inputs", caller), body.parameters or ClassificationParameters()
