"""`POST /generate`: a prompt in, images out; inline or as a job."""

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Header, Request
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response

from app.api.deps import ServicesDep
from app.api.files import file_response
from app.api.openapi import problems
from app.errors import NotAcceptable
from app.schemas.generations import GenerateRequest, GenerationRead
from app.schemas.jobs import JobRead

router = APIRouter(tags=["images"])
Result = TypeVar("Result")

_IMAGE_FORMATS = {"image/png": "png", "image/jpeg": "jpeg", "image/webp": "webp"}
_IMAGE = {"schema": {"type": "string", "format": "binary"}}
RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The images with everything that made them, or the bytes of the one image.",
        "content": dict.fromkeys(_IMAGE_FORMATS, _IMAGE),
    },
    202: {
        "model": JobRead,
        "description": "Accepted as a job.",
        "headers": {"Location": {"description": "The job.", "schema": {"type": "string"}}},
    },
    **problems(400, 406, 408, 413, 415, 422, 503, 507),
}


@router.post("/generate", summary="Make images from a prompt", response_model=GenerationRead, responses=RESPONSES)
async def generate_images(
    request: Request,
    body: GenerateRequest,
    services: ServicesDep,
    accept: Annotated[str, Header(max_length=500, description="`image/png` and the like answer the bytes.")] = "*/*",
    prefer: Annotated[str, Header(max_length=200, description="`respond-async` answers 202 with a job.")] = "",
) -> Any:
    """Answer when the images are there; a client that leaves cancels its request.

    `curl http://127.0.0.1:8000/generate -H 'Content-Type: application/json' -H 'Accept: image/png'
    -d '{"prompt": "a watercolor painting of a red fox"}' -o fox.png`
    """
    if "respond-async" in {part.strip().lower() for part in prefer.split(",")}:
        return await _accept_job(services, body)
    image_format = _wanted_image(accept)
    if image_format is not None:
        if body.num_images_per_prompt > 1:
            raise NotAcceptable("bytes are answered for one image alone", code="several_images")
        body = body.model_copy(update={"output_format": image_format})
    read = await unless_left(request, services.generations.generate(body))
    if image_format is None:
        return read
    return await _image_bytes(services, read)


async def unless_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`, but cancel it as soon as the client has left.

    Raises:
        ClientDisconnect: The client has left; nobody hears an answer.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        watch.cancel()
        task.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _wanted_image(accept: str) -> str | None:
    """Return the format of the bytes that `Accept` asks for; None for JSON."""
    wanted = [part.split(";")[0].strip().lower() for part in accept.split(",")]
    for media_type in wanted:
        if media_type in _IMAGE_FORMATS:
            return _IMAGE_FORMATS[media_type]
        if media_type in ("*/*", "application/*", "application/json", ""):
            return None
        if media_type == "image/*":
            return "png"
    raise NotAcceptable("this route answers application/json, image/png, image/jpeg or image/webp")


async def _accept_job(services: ServicesDep, body: GenerateRequest) -> Response:
    job = await asyncio.to_thread(services.generations.submit, body)
    headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async", "Retry-After": "1"}
    return JSONResponse(job.model_dump(mode="json"), 202, headers)


async def _image_bytes(services: ServicesDep, read: GenerationRead) -> FileResponse:
    image = read.images[0]
    stored = await asyncio.to_thread(services.images.file, image.id)
    response = file_response(stored)
    response.headers["X-Foxhound-Image-Id"] = image.id
    response.headers["X-Foxhound-Seed"] = str(image.seed)
    response.headers["Content-Location"] = image.url
    return response
