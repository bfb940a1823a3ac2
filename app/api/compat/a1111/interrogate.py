"""`POST /sdapi/v1/interrogate`: the label that fits an image best. Runs on the event loop."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse

from app.api.access.ids import CallerDep
from app.api.compat.a1111.schemas import InterrogateBody, InterrogateRead
from app.api.compat.data_uris import upload_of
from app.api.compat.notes import Notes
from app.api.deps import ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.json_bodies import parse_json, read_bytes
from app.api.parsing.picture_bodies import JSON_BOUNDS, JSON_BYTES
from app.schemas.judging import ClassifyRequest, ClipScoreRequest

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"], generate_unique_id_function=operation_id)

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InterrogateBody"}}},
    }
}
# Labels that the classifier proposes.
_NUM_LABELS = 20


@router.post(
    "/interrogate",
    summary="Name what an image shows",
    response_model=InterrogateRead,
    response_description="The label that fits best.",
    openapi_extra=_BODY,
    max_body_size=JSON_BYTES,
)
async def interrogate(request: Request, services: ServicesDep, caller: CallerDep) -> Any:
    """Return one label, not a sentence: of the classifier's twenty most probable, the one that CLIP scores highest.

    The headers `Warning` and `X-Foxhound-Warning` say that it is a label, and of how many.
    """
    body = await parse_json(request, await read_bytes(request, JSON_BYTES), InterrogateBody, JSON_BOUNDS)
    upload = await upload_of(services, body.image, "#/image", caller)
    _, [classified] = await services.judging.classify([upload], ClassifyRequest(top_k=_NUM_LABELS), caller)
    # Two classes of ImageNet can have one name.
    labels = list(dict.fromkeys(prediction.label for prediction in classified.predictions))
    [scored] = await services.judging.score([upload], ClipScoreRequest(labels=labels), caller)
    best = max(scored.scores, key=lambda score: score.probability)
    notes = Notes()
    notes.add("label_not_caption", f"The caption is the label of {len(labels)} that CLIP scores highest.")
    return JSONResponse({"caption": best.label}, headers=notes.headers())
