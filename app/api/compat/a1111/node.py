"""What clients of AUTOMATIC1111's web UI read and set beside their images.

What concerns drawings runs on the event loop, the rest on worker threads.
"""

import asyncio
import base64
from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.access.caller import Caller
from app.api.access.ids import CallerDep
from app.api.compat.a1111.checkpoints import checkpoint_named, checkpoints_of, title_of
from app.api.compat.a1111.drawings import DrawingBook
from app.api.compat.a1111.schemas import (
    CheckpointRead,
    EmbeddingEntry,
    EmbeddingsListRead,
    LoraEntry,
    MemoryRead,
    NamedRead,
    NothingRead,
    OptionsBody,
    OptionsRead,
    PngInfoBody,
    PngInfoRead,
    ProgressRead,
    SamplerRead,
    SchedulerRead,
    ScriptsRead,
    StateRead,
)
from app.api.compat.data_uris import upload_of
from app.api.compat.drawing import models_of
from app.api.deps import ServicesDep
from app.api.openapi import operation_id
from app.api.parsing.json_bodies import JsonRoute, parse_json, read_bytes
from app.api.parsing.picture_bodies import JSON_BOUNDS, JSON_BYTES
from app.image_spec import SAMPLER_NAMES
from app.services.images.texts import parameters_text

router = APIRouter(prefix="/sdapi/v1", tags=["a1111"], route_class=JsonRoute, generate_unique_id_function=operation_id)

_PNG_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PngInfoBody"}}},
    }
}
_DONE = "It is done."


@router.get("/options", summary="Read the options", response_description="The options.")
def get_options(request: Request, services: ServicesDep, caller: CallerDep) -> OptionsRead:
    """Return the few options that clients read."""
    chosen = checkpoints_of(request).of(caller.id)
    pack = services.inference.pack
    return OptionsRead(sd_model_checkpoint=chosen or title_of(pack), sd_checkpoint_hash="" if chosen else pack.revision)


@router.post("/options", summary="Set options", response_description=_DONE)
def set_options(request: Request, body: OptionsBody, services: ServicesDep, caller: CallerDep) -> NothingRead:
    """Choose the checkpoint of this caller's next drawings, until the node restarts, and ignore all other options."""
    if body.sd_model_checkpoint is not None:
        chosen = checkpoint_named(services, body.sd_model_checkpoint, "#/sd_model_checkpoint")
        checkpoints_of(request).choose(caller.id, chosen)
    return NothingRead()


@router.get("/samplers", summary="List the samplers", response_description="The noise schedulers.")
def list_samplers() -> list[SamplerRead]:
    """Return the noise schedulers under the web UI's names; ours are aliases."""
    return [SamplerRead(name=theirs, aliases=[ours]) for ours, theirs in SAMPLER_NAMES.items()]


@router.get("/schedulers", summary="List the schedulers", response_description="The spacings of timesteps.")
def list_schedulers() -> list[SchedulerRead]:
    """Return the spacings; `karras` is for DPM++ 2M."""
    names = {"automatic": "Automatic", "karras": "Karras"}
    return [SchedulerRead(name=name, label=label) for name, label in names.items()]


@router.get("/sd-models", summary="List the checkpoints", response_description="The models that draw.")
def list_checkpoints(services: ServicesDep) -> list[CheckpointRead]:
    """Return the loaded pack and the further models that draw as checkpoints."""
    pack, others = services.inference.pack, models_of(services)[1:]
    own = CheckpointRead(title=title_of(pack), model_name=pack.name, hash=pack.revision, filename=pack.name)
    return [own, *(CheckpointRead(title=name, model_name=name, hash="", filename=name) for name in others)]


def _none() -> list[NamedRead]:
    """Return an empty list: this node has none."""
    return []


for _path, _what in {
    "sd-vae": "VAEs",
    "upscalers": "upscalers",
    "latent-upscale-modes": "latent upscale modes",
    "hypernetworks": "hypernetworks",
    "face-restorers": "face restorers",
    "realesrgan-models": "Real-ESRGAN models",
    "prompt-styles": "prompt styles",
}.items():
    _name = f"list_{_path.replace('-', '_')}"
    router.add_api_route(
        f"/{_path}", _none, summary=f"List the {_what}", response_description="An empty list.", name=_name
    )


@router.get("/loras", summary="List the LoRAs", response_description="Those that fit the loaded model.")
def list_loras(services: ServicesDep) -> list[LoraEntry]:
    """Return the LoRAs that a prompt can name as `<lora:NAME:WEIGHT>`."""
    known = services.inference.adapters
    names = [name for name, entry in known.loras.items() if entry.file is not None] if known else []
    return [LoraEntry(name=name, alias=name, path=f"{name}.safetensors") for name in names]


@router.get("/embeddings", summary="List the textual inversions", response_description="By their names.")
def list_embeddings(services: ServicesDep) -> EmbeddingsListRead:
    """Return the textual inversions that fit the loaded model, and those that do not."""
    known = services.inference.adapters
    found = known.embeddings if known else {}
    fitting = {name: entry.file for name, entry in found.items() if entry.file is not None}
    return EmbeddingsListRead(
        loaded={name: EmbeddingEntry(vectors=file.num_vectors) for name, file in fitting.items()},
        skipped={name: EmbeddingEntry(vectors=None) for name in found if name not in fitting},
    )


@router.post("/refresh-checkpoints", summary="Read the checkpoints again", response_description=_DONE)
def refresh_checkpoints() -> NothingRead:
    """Do nothing: the loaded pack stays."""
    return NothingRead()


@router.get("/scripts", summary="List the scripts", response_description="None.")
def list_scripts() -> ScriptsRead:
    """Return that there are no scripts."""
    return ScriptsRead(txt2img=[], img2img=[])


@router.get("/cmd-flags", summary="Read the command's flags", response_description="None.")
def get_cmd_flags() -> NothingRead:
    """Return no flags."""
    return NothingRead()


@router.get("/memory", summary="Read the memory's state", response_description="Nothing.")
def get_memory() -> MemoryRead:
    """Return empty objects; `/metrics` has what this node measures."""
    return MemoryRead()


@router.get("/progress", summary="Follow the newest drawing", response_description="How far it is.")
async def get_progress(
    request: Request,
    caller: CallerDep,
    skip_current_image: Annotated[bool, Query(description="Whether to leave `current_image` null.")] = False,
) -> ProgressRead:
    """Return how far this caller's newest drawing is; 0 and no jobs if nothing is drawn for him."""
    book: DrawingBook = request.app.state.drawings
    drawing = book.newest(caller.id)
    return ProgressRead(
        progress=drawing.share if drawing else 0.0,
        eta_relative=book.seconds_left(drawing) if drawing else 0.0,
        state=StateRead(
            interrupted=drawing.was_interrupted if drawing else False,
            job_count=book.number(caller.id),
            sampling_step=drawing.step if drawing else 0,
            sampling_steps=drawing.steps if drawing else 0,
        ),
        current_image=base64.b64encode(drawing.preview).decode()
        if drawing and drawing.preview and not skip_current_image
        else None,
    )


@router.post("/interrupt", summary="Interrupt the newest drawing", response_description=_DONE)
async def interrupt_drawing(request: Request, caller: CallerDep) -> NothingRead:
    """Cancel this caller's newest drawing, if there is one; its request is answered with 409."""
    return _interrupt(request, caller)


@router.post("/skip", summary="Skip the newest drawing", response_description=_DONE)
async def skip_drawing(request: Request, caller: CallerDep) -> NothingRead:
    """Do what `/sdapi/v1/interrupt` does: the images of a request are drawn together."""
    return _interrupt(request, caller)


@router.post(
    "/png-info",
    summary="Read an image's settings",
    response_description="The text that the image carries.",
    openapi_extra=_PNG_BODY,
    max_body_size=JSON_BYTES,
)
async def read_png_info(request: Request, services: ServicesDep, caller: CallerDep) -> PngInfoRead:
    """Return the `parameters` text of a PNG file; empty if it has none."""
    body = await parse_json(request, await read_bytes(request, JSON_BYTES), PngInfoBody, JSON_BOUNDS)
    upload = await upload_of(services, body.image, "#/image", caller)
    return PngInfoRead(info=await asyncio.to_thread(parameters_text, upload.data))


def _interrupt(request: Request, caller: Caller) -> NothingRead:
    book: DrawingBook = request.app.state.drawings
    if drawing := book.newest(caller.id):
        drawing.interrupt()
    return NothingRead()
