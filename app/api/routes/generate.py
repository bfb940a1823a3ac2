"""`POST /generate`: images from a prompt; answered inline, as events while they are made, or as a job.

`Accept` and `Prefer` choose the answer of `/generate`. `/generate/image` and `/generate/events` have one type of answer
each, for generated clients. Runs on the event loop; work that blocks is handed to pool threads.
"""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from starlette.responses import JSONResponse, Response

from app.access.caller import Caller
from app.api import sse
from app.api.access.ids import CallerDep, GenerationId
from app.api.deps import ServicesDep
from app.api.openapi import BODY_STATUSES, problems
from app.api.parsing.forms import validate
from app.api.parsing.json_bodies import PROMPT_BODY
from app.api.parsing.picture_bodies import PICTURES_BODY, PictureRoute
from app.api.responses import image_response, select_media_type
from app.api.serving.disconnects import unless_left
from app.api.submissions import SubmissionDep
from app.error_codes import ErrorCode
from app.errors import Malformed, NotAcceptable
from app.image_spec import OutputFormat
from app.metrics.node import NodeMetrics
from app.schemas.generations import GenerateImageRequest, GenerateRequest, GenerationRead, RepeatRequest
from app.schemas.jobs import GenerateJob
from app.schemas.response_docs import BYTES, EVENTS, IMAGE_TYPES, JSON, binary, event_stream, headers
from app.services.generations.service import Generated
from app.services.jobs.idempotency import Submission

router = APIRouter(tags=["images"], route_class=PictureRoute)

_IMAGE_FORMATS: dict[str, OutputFormat] = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
_FORMAT_TYPES = {image_format: media_type for media_type, image_format in _IMAGE_FORMATS.items()}
# What each name in `Accept` is answered with.
_ANSWERS = {
    **{media_type: media_type for media_type in (JSON, EVENTS, *_IMAGE_FORMATS)},
    **dict.fromkeys(("", "*/*", "application/*"), JSON),
    "image/*": "image/png",
}
# As above; `image/*` is the request's own `output_format`.
_IMAGE_ANSWERS = {
    **{media_type: media_type for media_type in (*_IMAGE_FORMATS, BYTES)},
    **dict.fromkeys(("", "*/*", "image/*"), "image/*"),
}

_STREAM = event_stream(
    "GenerationEvent",
    "Server-sent events, each one's data JSON: `progress` with each image's newest step, 0 once it is taken, steps "
    "skipped for a client that is slow; `queued` with the requests that go before it, if there are any, whenever their "
    "number changes; then one `result`, or one `error` with the problem that an ordinary answer "
    "would be, `retry` its Retry-After in milliseconds. A comment breaks silences of 10 s.",
    'event: progress\ndata: {"kind":"progress","image":0,"step":7,"steps":26,"num_images":1}\n\n',
)
_IMAGE_HEADERS = headers(
    "ETag",
    "Cache-Control",
    "Content-Disposition",
    "Content-Location",
    "Last-Modified",
    "X-Foxhound-Image-Id",
    "X-Foxhound-Seed",
)
_ERRORS = problems(400, 406, 410, *BODY_STATUSES, 422, 503, 507)
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images with everything that made them; or what `Accept` asks for: the one image's bytes, "
        "or events until the images are there.",
        "content": {**binary(*IMAGE_TYPES), **_STREAM["content"]},
    },
    202: {
        "model": GenerateJob,
        "description": "Accepted as a job, because `Prefer` asks for it.",
        "headers": headers("Location", "Preference-Applied", "Retry-After", "Idempotency-Replayed"),
    },
    **_ERRORS,
}


@router.post(
    "/generate",
    summary="Make images from a prompt",
    response_model=GenerationRead,
    responses=RESPONSES,
    max_body_size=PICTURES_BODY,
)
async def generate_images(
    request: Request,
    body: GenerateRequest,
    services: ServicesDep,
    submission: SubmissionDep,
    caller: CallerDep,
    prefer: Annotated[
        str | None,
        Header(max_length=200, description="`respond-async` answers 202 with a job, whatever `Accept` says."),
    ] = None,
) -> Any:
    """Answer when the images are there; a client that leaves cancels its request.

    With `Accept: image/png`, `image/jpeg` or `image/webp` the answer is the bytes of the one image, as of
    `/generate/image`; with `Accept: text/event-stream` it is events, as of `/generate/events`. The first supported
    type counts.

    With `init_image` the images are made from a picture, with `mask` from a part of it. Pictures may also be files
    `init_image` and `mask` of a multipart form, whose other fields have the names of the JSON body.

    `curl http://127.0.0.1:8000/generate -H 'Content-Type: application/json' -H 'Accept: image/png'
    -d '{"prompt": "a watercolor painting of a red fox"}' -o fox.png`
    """
    if _is_async(prefer):
        return await _accept_job(services, body, submission)
    _refuse_key(submission)
    media_type = select_media_type(request.headers.get("accept", "*/*"), _ANSWERS)
    if media_type == EVENTS:
        return await _stream(request, body, services, caller)
    if media_type in _IMAGE_FORMATS:
        if body.num_images_per_prompt > 1:
            raise NotAcceptable(
                "Image bytes are answered for one image only. Ask for JSON, or for one image.",
                code=ErrorCode.SEVERAL_IMAGES,
            )
        body = body.model_copy(update={"output_format": _IMAGE_FORMATS[media_type]})
    generated = _counted(request, await unless_left(request, services.generations.generate(body, caller)))
    return generated.read if media_type == JSON else _image_bytes(generated, media_type)


@router.post(
    "/generate/image",
    summary="Make one image and return its bytes",
    response_class=Response,
    responses={
        200: {
            "description": "The image's file.",
            "content": binary(*IMAGE_TYPES, BYTES),
            "headers": _IMAGE_HEADERS,
        },
        **_ERRORS,
    },
    max_body_size=PICTURES_BODY,
)
async def generate_image(
    request: Request, body: GenerateImageRequest, services: ServicesDep, caller: CallerDep
) -> Response:
    """Answer with the file of one image; it is stored like those of `/generate`, and headers have its id and seed.

    The format is `output_format`, or the first of `image/png`, `image/jpeg` and `image/webp` in `Accept`.

    `curl http://127.0.0.1:8000/generate/image -H 'Content-Type: application/json'
    -d '{"prompt": "a watercolor painting of a red fox"}' -o fox.png`
    """
    media_type = select_media_type(request.headers.get("accept", "*/*"), _IMAGE_ANSWERS)
    image_format = _IMAGE_FORMATS.get(media_type, body.output_format)
    one = GenerateRequest(**{**body.model_dump(exclude_unset=True), "output_format": image_format})
    generated = _counted(request, await unless_left(request, services.generations.generate(one, caller)))
    return _image_bytes(generated, BYTES if media_type == BYTES else _FORMAT_TYPES[image_format])


@router.post(
    "/generate/events",
    summary="Make images and follow their progress",
    response_class=Response,
    responses={200: _STREAM, **_ERRORS},
    max_body_size=PICTURES_BODY,
)
async def generate_events(
    request: Request, body: GenerateRequest, services: ServicesDep, caller: CallerDep
) -> Response:
    """Answer step by step until the images are there; a client that leaves cancels its request.

    `curl -N http://127.0.0.1:8000/generate/events -H 'Content-Type: application/json'
    -d '{"prompt": "a watercolor painting of a red fox"}'`
    """
    return await _stream(request, body, services, caller)


@router.post(
    "/generations/{generation_id}/repeat",
    status_code=201,
    summary="Repeat a generation with other settings",
    response_model=GenerationRead,
    responses={
        201: {"description": "The new generation.", "headers": headers("Location")},
        202: RESPONSES[202],
        **problems(400, 404, *BODY_STATUSES, 422, 503, 507),
    },
    max_body_size=PROMPT_BODY,
)
async def repeat_generation(
    request: Request,
    generation_id: GenerationId,
    body: RepeatRequest,
    services: ServicesDep,
    submission: SubmissionDep,
    caller: CallerDep,
    prefer: Annotated[str | None, Header(max_length=200, description="`respond-async` answers 202 with a job.")] = None,
) -> Any:
    """Draw it again with the settings that it has and those given here: more steps, another scheduler, another seed.

    The seeds stay unless `seed` is given, so that the images are of the same composition. Given steps replace recorded
    `timesteps`, and the other way round. With `strength` and a larger size, its image is drawn larger.

    `curl http://127.0.0.1:8000/generations/{generation_id}/repeat -H 'Content-Type: application/json'
    -d '{"num_inference_steps": 50}'`
    """
    values = await asyncio.to_thread(services.generations.repeat, generation_id, body)
    again = validate(GenerateRequest, values)
    if _is_async(prefer):
        return await _accept_job(services, again, submission)
    _refuse_key(submission)
    read = _counted(request, await unless_left(request, services.generations.generate(again, caller))).read
    return JSONResponse(read.model_dump(mode="json"), 201, {"Location": f"/generations/{read.id}"})


def _is_async(prefer: str | None) -> bool:
    return "respond-async" in {part.strip().lower() for part in (prefer or "").split(",")}


def _refuse_key(submission: Submission) -> None:
    """Raise for an `Idempotency-Key` of an inline answer."""
    if submission.key is not None:
        detail = "An Idempotency-Key needs `Prefer: respond-async`. An inline answer is repeated by its seed."
        raise Malformed(detail, code=ErrorCode.IDEMPOTENCY_KEY_NOT_INLINE)


async def _stream(request: Request, body: GenerateRequest, services: ServicesDep, caller: Caller) -> Response:
    async def generate(progress: sse.Progress) -> GenerationRead:
        drawing = services.generations.generate(body, caller, on_step=progress.report, on_position=progress.place)
        return _counted(request, await drawing).read

    return await sse.stream(request, generate, body.num_candidates)


def _counted(request: Request, generated: Generated) -> Generated:
    metrics: NodeMetrics = request.app.state.metrics
    metrics.http.add_images(len(generated.files))
    return generated


async def _accept_job(services: ServicesDep, body: GenerateRequest, submission: Submission) -> Response:
    job = await services.generations.submit(body, submission)
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
