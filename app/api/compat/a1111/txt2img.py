"""`POST /sdapi/v1/txt2img`: images as clients of AUTOMATIC1111's web UI ask for them. Runs on the event loop."""

import asyncio
import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.compat.a1111.checkpoints import requested_checkpoint
from app.api.compat.a1111.drawings import DrawingBook
from app.api.compat.a1111.schemas import Txt2ImgBody, Txt2ImgRead
from app.api.compat.drawing import drawing, native_request, sides_of, with_previews
from app.api.compat.notes import Notes
from app.api.compat.requests import drawn_size, naming, noise_scheduler
from app.api.deps import Services, ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.json_bodies import PROMPT_BODY, JsonRoute
from app.api.serving.disconnects import unless_left
from app.error_codes import ErrorCode
from app.errors import Conflict, FieldError, Invalid
from app.image_spec import SAMPLER_NAMES, NoiseSchedulerName
from app.schemas.generations import GenerateRequest
from app.services.generations.service import Generated
from app.services.images.texts import parameters_text

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"], route_class=JsonRoute, generate_unique_id_function=operation_id)

# The client's names of fields by ours.
NAMES = {"num_images_per_prompt": "batch_size", "num_inference_steps": "steps", "guidance_scale": "cfg_scale"}
_LORA = re.compile(r"<lora:([^:<>]+)(?::(-?[0-9]+(?:\.[0-9]*)?))?(?::[^<>]*)?>")
# What gives a part of a prompt another weight, or takes such a sign as text.
_BRACKETS = re.compile(r"[()\[\]\\]")
# Of each image, for those who ask for the progress; a preview costs a thousandth of a decoding.
_NUM_PREVIEWS = 9
_NOT_USED = {
    "enable_hr": "The image is drawn once, at its size.",
    "restore_faces": "Faces are not restored.",
    "tiling": "The image does not tile.",
    "subseed_strength": "The seed alone counts.",
    "styles": "Write the style into the prompt.",
    "script_name": "This node has no scripts.",
    "refiner_checkpoint": "This node has no refiner.",
}


@router.post(
    "/txt2img",
    summary="Make images from a prompt",
    response_model=Txt2ImgRead,
    response_description="The images.",
    max_body_size=PROMPT_BODY,
)
async def txt2img(request: Request, body: Txt2ImgBody, services: ServicesDep, caller: CallerDep) -> Any:
    """Draw as `/generate` does: the same seed and settings give the same bytes.

    A client that leaves cancels its request, and so does `/sdapi/v1/interrupt`.
    """
    notes = Notes()
    model = requested_checkpoint(request, services, body, caller)
    size = drawn_size(sides_of(services, model), body.width, body.height, notes)
    native = native_request({**native_values(body, size, notes), "model": model}, NAMES)
    return await answer(request, body, native, services, caller, notes, names=NAMES)


async def answer(
    request: Request,
    body: Txt2ImgBody,
    native: GenerateRequest,
    services: Services,
    caller: Caller,
    notes: Notes,
    *,
    names: Mapping[str, str],
) -> Response:
    """Draw, and answer with the images; in strict mode only without notes.

    `names` has the client's names of fields by ours.
    """
    if body.strict and notes.items:
        faults = [FieldError("#", note.detail, ErrorCode.INVALID_REQUEST) for note in notes.items]
        raise Invalid(faults[0].detail, errors=faults)
    book: DrawingBook = request.app.state.drawings
    with book.begin(caller.id, native.num_images_per_prompt) as drawn, naming(names):
        try:
            work = drawing(request, services, with_previews(native, _NUM_PREVIEWS), caller, drawn.report)
            generated = await unless_left(request, drawn.run(work))
        except asyncio.CancelledError:
            if not drawn.was_interrupted:
                raise
            raise Conflict("The images were interrupted before they were complete. Send the request again.") from None
    notes.extend(generated.read.warnings)
    texts = await asyncio.to_thread(lambda: [parameters_text(file) for file in generated.files])
    return JSONResponse(_answer(body, generated, texts, notes), headers=notes.headers())


def native_values(body: Txt2ImgBody, size: tuple[int, int], notes: Notes) -> dict[str, Any]:
    """Return the fields of the request of `/generate` that a body stands for; those that are None have none."""
    for field, instead in _NOT_USED.items():
        if getattr(body, field):
            notes.unused(field, instead)
    width, height = size
    prompt, loras = read_loras(body.prompt)
    is_weighted = any(_BRACKETS.search(text or "") for text in (prompt, body.negative_prompt))
    return {
        "prompt": prompt,
        "loras": loras or None,
        "prompt_syntax": "weighted" if is_weighted else None,
        "negative_prompt": body.negative_prompt,
        "num_images_per_prompt": body.batch_size * body.n_iter,
        "width": width,
        "height": height,
        "seed": None if body.seed == -1 else body.seed,
        "num_inference_steps": body.steps,
        "guidance_scale": body.cfg_scale,
        "scheduler": _scheduler(body, notes),
    }


def read_loras(prompt: str) -> tuple[str, list[dict[str, Any]]]:
    """Return a prompt without its tags `<lora:NAME:WEIGHT>`, and what they say."""
    loras = [{"name": name, "weight": float(weight or 1)} for name, weight in _LORA.findall(prompt)]
    return _LORA.sub("", prompt), loras


def _scheduler(body: Txt2ImgBody, notes: Notes) -> NoiseSchedulerName | None:
    """Return the noise scheduler; the web UI names the spacing of DPM++ 2M beside it."""
    found = noise_scheduler(body.sampler_name or body.sampler_index, notes)
    spacing = (body.scheduler or "automatic").lower()
    if found == "dpmpp_2m" and spacing == "karras":
        return "dpmpp_2m_karras"
    if spacing not in ("automatic", "normal") and found != "dpmpp_2m_karras":
        notes.unused("scheduler", "The sampler has its own spacing of timesteps.")
    return found


def _answer(body: Txt2ImgBody, generated: Generated, texts: Sequence[str], notes: Notes) -> dict[str, Any]:
    used, read = generated.read.parameters, generated.read
    common = {
        "prompt": used.prompt,
        "negative_prompt": used.negative_prompt,
        "seed": used.seed,
        "steps": used.num_inference_steps,
        "cfg_scale": used.guidance_scale,
        "width": used.width,
        "height": used.height,
        "batch_size": body.batch_size,
        "sampler_name": SAMPLER_NAMES[used.scheduler],
    }
    num_images = len(read.images)
    info = {
        **common,
        "all_prompts": [used.prompt] * num_images,
        "all_negative_prompts": [used.negative_prompt] * num_images,
        "all_seeds": [image.seed for image in read.images],
        "subseed": used.seed,
        "all_subseeds": [image.seed for image in read.images],
        "subseed_strength": 0,
        "restore_faces": False,
        "sd_model_name": read.model.name,
        "sd_model_hash": read.model.revision,
        "denoising_strength": used.strength or 0,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": list(texts),
        "styles": [],
        "job_timestamp": read.created_at.strftime("%Y%m%d%H%M%S"),
        "clip_skip": 1,
        "warnings": notes.as_json(),
    }
    images = [base64.b64encode(file).decode() for file in generated.files] if body.send_images else []
    return {"images": images, "parameters": {**common, "n_iter": body.n_iter}, "info": json.dumps(info)}
