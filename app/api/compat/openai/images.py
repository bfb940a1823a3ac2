"""`/v1/images/*`: images as OpenAI's clients ask for them. Runs on the event loop."""

import base64
import json
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from fastapi.sse import format_sse_event
from starlette.responses import JSONResponse, Response

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.compat.drawing import draw, drawing, models_of, native_request, sides_of, with_previews
from app.api.compat.errors import openai_error
from app.api.compat.notes import Notes
from app.api.compat.openai.schemas import NO_USAGE, ImagesBody, ImagesRead
from app.api.compat.requests import drawn_size, naming
from app.api.deps import Services, ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.json_bodies import PROMPT_BODY, JsonRoute
from app.api.problems import respond
from app.api.sse import EventForm, Progress, stream
from app.error_codes import ErrorCode
from app.errors import AppError, Invalid
from app.schemas.generations import GenerateRequest, GenerationProgress
from app.services.generations.service import Generated

router = APIRouter(prefix="/v1", tags=["openai"], route_class=JsonRoute, generate_unique_id_function=operation_id)

_SIZE = re.compile(r"([1-9][0-9]{0,4})\s*[xX]\s*([1-9][0-9]{0,4})")
# The client's names of fields by ours.
NAMES = {"num_images_per_prompt": "n", "width": "size", "height": "size"}


@router.post(
    "/images/generations",
    summary="Make images from a prompt",
    response_model=ImagesRead,
    response_description="The images; with `stream`, server-sent events.",
    max_body_size=PROMPT_BODY,
)
async def create_image(request: Request, body: ImagesBody, services: ServicesDep, caller: CallerDep) -> Any:
    """Draw as `/generate` does: the same seed and settings give the same bytes.

    With `stream`, each image is one event `image_generation.completed`, after up to `partial_images` events
    `image_generation.partial_image`, PNG files of an eighth of its width and height. A client that leaves cancels its
    request.
    """
    notes = unused(body)
    model = model_of(services, body)
    size = drawn_size(sides_of(services, model), *size_of(body.size), notes)
    native = native_request({**native_values(body, size), "model": model}, NAMES)
    return await answer(request, body, native, services, caller, notes, kind="image_generation")


async def answer(
    request: Request,
    body: ImagesBody,
    native: GenerateRequest,
    services: Services,
    caller: Caller,
    notes: Notes,
    *,
    kind: str,
    names: Mapping[str, str] = NAMES,
) -> Response:
    """Draw, and answer with all images at once, or with events whose type begins with `kind`.

    `names` has the client's names of fields by ours.
    """
    if body.stream:
        num_partial = body.partial_images or 0
        return await _stream(
            request, with_previews(native, num_partial), services, caller, notes, _Events(kind, num_partial), names
        )
    generated = await draw(request, services, native, caller, names)
    notes.extend(generated.read.warnings)
    read = _answer(request, generated, notes, as_url=body.response_format == "url")
    return JSONResponse(read, headers=notes.headers())


def model_of(services: Services, body: ImagesBody) -> str | None:
    """Return the model that a body names; None for the default one, and for the names of other services' models."""
    return body.model if body.model in models_of(services)[1:] else None


def native_values(body: ImagesBody, size: tuple[int, int]) -> dict[str, Any]:
    """Return the fields of the request of `/generate` that a body stands for; those that are None have none."""
    width, height = size
    return {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "num_images_per_prompt": body.n,
        "width": width,
        "height": height,
        "output_format": body.output_format,
        "seed": body.seed,
        "num_inference_steps": body.num_inference_steps or body.steps,
        "guidance_scale": body.guidance_scale,
    }


def size_of(text: str | None) -> tuple[int | None, int | None]:
    """Return the width and height of a text such as `512x512`; None for `auto`.

    Raises:
        Invalid: It is neither.
    """
    if text is None or text.strip().lower() == "auto":
        return None, None
    if not (found := _SIZE.fullmatch(text.strip())):
        raise Invalid.field("#/size", "This must be auto, or a size such as 512x512.", ErrorCode.SIZE_NOT_SUPPORTED)
    return int(found[1]), int(found[2])


def unused(body: ImagesBody) -> Notes:
    """Return notes on the fields that change the picture elsewhere and not here."""
    notes = Notes()
    if body.background == "transparent":
        notes.unused("background", "The image is opaque.")
    if body.quality not in (None, "auto", "standard"):
        notes.unused("quality", "Send num_inference_steps instead.")
    if body.style is not None:
        notes.unused("style", "Say it in the prompt.")
    if body.output_compression is not None and body.output_format in ("jpeg", "webp"):
        notes.unused("output_compression", "JPEG and WebP have the quality 95.")
    return notes


def _answer(request: Request, generated: Generated, notes: Notes, *, as_url: bool) -> dict[str, Any]:
    read = generated.read
    data: list[dict[str, Any]] = []
    for image, file in zip(read.images, generated.files, strict=True):
        shown = {"url": f"{str(request.base_url).rstrip('/')}{image.url}"} if as_url else {"b64_json": _base64(file)}
        data.append({**shown, "seed": image.seed})
    return {
        "created": int(read.created_at.timestamp()),
        "data": data,
        "size": f"{read.images[0].width}x{read.images[0].height}",
        "output_format": read.images[0].format,
        "background": "opaque",
        "warnings": notes.as_json(),
    }


async def _stream(
    request: Request,
    native: GenerateRequest,
    services: Services,
    caller: Caller,
    notes: Notes,
    events: "_Events",
    names: Mapping[str, str],
) -> Response:
    async def generate(progress: Progress) -> Generated:
        with naming(names):
            return await drawing(request, services, native, caller, progress.report)

    response = await stream(request, generate, native.num_images_per_prompt, events)
    response.headers.update(notes.headers())
    return response


class _Events(EventForm):
    """OpenAI's events: each finished image is one, and so are its first previews; other steps are not sent."""

    def __init__(self, kind: str, num_partial: int) -> None:
        self._kind = kind
        self._num_partial = num_partial
        self._sent: Counter[int] = Counter()

    def steps(self, steps: Sequence[GenerationProgress]) -> bytes:
        shown = [step for step in steps if step.preview_png_b64 and self._sent[step.image] < self._num_partial]
        return b"".join(self._partial(step) for step in shown)

    def _partial(self, step: GenerationProgress) -> bytes:
        kind = f"{self._kind}.partial_image"
        data = {
            "type": kind,
            "b64_json": step.preview_png_b64,
            "partial_image_index": self._sent[step.image],
            "created_at": int(time.time()),
            "size": "auto",
            "quality": "auto",
            "background": "opaque",
            "output_format": "png",
        }
        self._sent[step.image] += 1
        return format_sse_event(event=kind, data_str=json.dumps(data))

    def result(self, result: Generated) -> bytes:
        read, kind = result.read, f"{self._kind}.completed"
        events = []
        for image, file in zip(read.images, result.files, strict=True):
            data = {
                "type": kind,
                "b64_json": _base64(file),
                "created_at": int(read.created_at.timestamp()),
                "size": f"{image.width}x{image.height}",
                "quality": "auto",
                "background": "opaque",
                "output_format": image.format,
                "usage": NO_USAGE,
                "seed": image.seed,
            }
            events.append(format_sse_event(event=kind, data_str=json.dumps(data)))
        return b"".join(events)

    def error(self, request: Request, error: AppError) -> bytes:
        problem = json.loads(bytes(respond(request, error).body))
        return format_sse_event(event="error", data_str=json.dumps(openai_error(problem)))


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()
