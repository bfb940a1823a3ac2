"""`POST /generate`: images from a prompt; answered inline, as events while they are made, or as a job.

Runs on the event loop; work that blocks is handed to pool threads.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.responses import JSONResponse, Response

from app.api import sse
from app.api.access.ids import CallerDep
from app.api.deps import ServicesDep
from app.api.disconnects import unless_left
from app.api.json_bodies import PROMPT_BODY, JsonRoute
from app.api.openapi import problems
from app.api.responses import image_response, select_media_type
from app.api.submissions import SubmissionDep
from app.error_codes import ErrorCode
from app.errors import Malformed, NotAcceptable
from app.image_spec import OutputFormat
from app.metrics.node import NodeMetrics
from app.schemas.generations import GenerateRequest, GenerationRead
from app.schemas.jobs import JobRead
from app.services.generations.service import Generated
from app.services.jobs.idempotency import Submission

router = APIRouter(tags=["images"], route_class=JsonRoute)

_IMAGE_FORMATS: dict[str, OutputFormat] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
_JSON, _EVENTS = "application/json", "text/event-stream"
# What each name in `Accept` is answered with.
_ANSWERS = {
    **{media_type: media_type for media_type in (_JSON, _EVENTS, *_IMAGE_FORMATS)},
    **dict.fromkeys(("", "*/*", "application/*"), _JSON),
    "image/*": "image/png",
}
_EVENT_STREAM = {
    "schema": {
        "type": "string",
        "description": "Server-sent events, each one's data JSON: `progress` with each image's newest step, 0 once it "
        "is taken, steps skipped for a client that is slow; then one `result`, or one `error` with the problem that "
        "an ordinary answer would be, `retry` its Retry-After in milliseconds. A comment breaks silences of 10 s.",
    },
    "x-events": {
        name: {"$ref": f"#/components/schemas/{schema}"}
        for name, schema in (("progress", "GenerationProgress"), ("result", "GenerationRead"), ("error", "Problem"))
    },
    "example": 'event: progress\ndata: {"image":0,"step":7,"steps":26,"num_images":1}\n\n'
    'event: result\ndata: {"id":"019af3c8-7c0e-7c7e-b1a5-0d9f4e6a2b11","images":[]}\n\n',
}
_ACCEPT = "`image/png` and the like answer the bytes, `text/event-stream` progress as events; the first one counts."
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images with everything that made them, events until they are there, or the one image's "
        "bytes.",
        "content": {**dict.fromkeys(_IMAGE_FORMATS, _IMAGE), _EVENTS: _EVENT_STREAM},
    },
    202: {
        "model": JobRead,
        "description": "Accepted as a job.",
        "headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}},
    },
    **problems(400, 406, 408, 413, 415, 422, 503, 507),
}


@router.post(
    "/generate",
    summary="Make images from a prompt",
    response_model=GenerationRead,
    responses=RESPONSES,
    max_body_size=PROMPT_BODY,
)
async def generate_images(
    request: Request,
    body: GenerateRequest,
    services: ServicesDep,
    submission: SubmissionDep,
    caller: CallerDep,
    accept: Annotated[str, Header(max_length=500, description=_ACCEPT)] = "*/*",
    prefer: Annotated[
        str, Header(max_length=200, description="`respond-async` answers 202 with a job, whatever `Accept` says.")
    ] = "",
) -> Any:
    """Answer when the images are there, or step by step until they are; a client that leaves cancels its request.

    `curl http://127.0.0.1:8000/generate -H 'Content-Type: application/json' -H 'Accept: image/png'
    -d '{"prompt": "a watercolor painting of a red fox"}' -o fox.png`
    """
    if "respond-async" in {part.strip().lower() for part in prefer.split(",")}:
        return await _accept_job(services, body, submission)
    if submission.key is not None:
        detail = "An Idempotency-Key needs `Prefer: respond-async`. An inline answer is repeated by its seed."
        raise Malformed(detail, code=ErrorCode.IDEMPOTENCY_KEY_NOT_INLINE)
    media_type = select_media_type(accept, _ANSWERS)
    if media_type == _EVENTS:

        async def generate(on_step: sse.OnStep) -> GenerationRead:
            return _counted(request, await services.generations.generate(body, caller, on_step=on_step)).read

        return await sse.stream(request, generate, body.num_images_per_prompt)
    if media_type in _IMAGE_FORMATS:
        if body.num_images_per_prompt > 1:
            raise NotAcceptable(
                "Image bytes are answered for one image only. Ask for JSON, or for one image.",
                code=ErrorCode.SEVERAL_IMAGES,
            )
        body = body.model_copy(update={"output_format": _IMAGE_FORMATS[media_type]})
    generated = _counted(request, await unless_left(request, services.generations.generate(body, caller)))
    return generated.read if media_type == _JSON else _image_bytes(generated, media_type)


def _counted(request: Request, generated: Generated) -> Generated:
    metrics: NodeMetrics = request.app.state.metrics
    metrics.http.add_images(len(generated.files))
    return generated


async def _accept_job(services: ServicesDep, body: GenerateRequest, submission: Submission) -> Response:
    job = await asyncio.to_thread(services.generations.submit, body, submission)
    headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async", "Retry-After": "1"}
    return JSONResponse(job.model_dump(mode="json"), 202, headers)


def _image_bytes(generated: Generated, media_type: str) -> Response:
    """Answer the bytes of the one image, without reading back what was stored."""
    (image,), (data,) = generated.read.images, generated.files
    name = f"{image.id}.{image.format}"
    created_at = generated.read.created_at
    response = image_response(data, media_type, sha256=image.sha256, name=name, created_at=created_at)
    response.headers["X-Foxhound-Image-Id"] = image.id
    response.headers["X-Foxhound-Seed"] = str(image.seed)
    response.headers["Content-Location"] = image.url
    return response
