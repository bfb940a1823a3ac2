"""A generation once more, with other settings: its recorded parameters as a request, under what a client overrides.

A finished generation keeps its seed and all settings. A `generate` job that was cancelled or failed has no generation;
its spec keeps the same, and retrying the job draws the same images. Imports no engine. Runs in the API process, on pool
threads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from app.db.models import Generation, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Invalid, NotFound
from app.schemas.generations import GenerateRequest, RepeatRequest
from app.services.images.sources import INIT_IMAGE, MASK

# Settings that decide the same thing: one that is given drops what was recorded of the others.
_RIVALS: Mapping[str, tuple[str, ...]] = {
    "num_inference_steps": ("timesteps",),
    "timesteps": ("num_inference_steps", "timestep_spacing"),
    "timestep_spacing": ("timesteps",),
}

# What `fast` has values of its own for, so that another speed does not take them over, nor `fast` those of another.
_OF_THE_SPEED = ("num_inference_steps", "guidance_scale", "scheduler", "timestep_spacing", "timesteps")


def repeated(db: Database, generation_id: str, overrides: RepeatRequest) -> dict[str, Any]:
    """Return the fields of the `GenerateRequest` that repeats a generation, not validated yet.

    Args:
        db: Has the generation.
        generation_id: Of a generation that the caller sees.
        overrides: What is to be different.

    Raises:
        NotFound: There is none with this id.
        Invalid: The picture that it began with is not kept.
    """
    with db.snapshot() as session:
        row = session.get(Generation, generation_id)
        if row is None:
            raise NotFound("There is no generation with this id.")
        images = session.scalars(select(Image.id).where(Image.generation_id == generation_id).order_by(Image.id)).all()
        return _merged(row.parameters, overrides, images)


def _merged(recorded: Mapping[str, Any], overrides: RepeatRequest, images: Sequence[str]) -> dict[str, Any]:
    """Return recorded parameters, of any release, under the fields that were given."""
    given = overrides.model_dump(exclude_none=True, exclude_unset=True)
    values = {name: recorded[name] for name in GenerateRequest.model_fields if name in recorded}
    if "speed" in given and (given["speed"] == "fast") != (values.get("speed") == "fast"):
        values = {name: value for name, value in values.items() if name not in _OF_THE_SPEED}
    for name in given:
        for rival in _RIVALS.get(name, ()):
            values.pop(rival, None)
    if "num_images_per_prompt" in given and "best_of" not in given:
        values.pop("best_of", None)
    return {**values, **_pictures(values, given, images), **given}


def _pictures(recorded: dict[str, Any], given: Mapping[str, Any], images: Sequence[str]) -> dict[str, Any]:
    """Take the pictures out of recorded parameters, and return the fields of those to begin with.

    Raises:
        Invalid: A picture came with the request, or the generation has several images to begin with.
    """
    kept = {name: recorded.pop(name, None) for name in (INIT_IMAGE, MASK)}
    settings = {name: recorded.pop(name, None) for name in ("strength", "mask_blur", "mask_invert")}
    if INIT_IMAGE in given:
        return {}
    if kept[INIT_IMAGE] is None:
        if "strength" not in given:
            return {}
        if len(images) != 1:
            raise _missing(INIT_IMAGE, "The generation has several images. Give the one to begin with as init_image.")
        return {INIT_IMAGE: {"image_id": images[0]}}
    named = {name: kept[name] for name in kept if kept[name] is not None and name not in given}
    for name, picture in named.items():
        if picture["image_id"] is None:
            raise _missing(name, f"The {name} came with the request and is not kept. Send it again as {name}.")
    pictures = {name: {"image_id": picture["image_id"]} for name, picture in named.items()}
    masked = settings if MASK in named else {"strength": settings["strength"]}
    return {**pictures, **masked}


def _missing(name: str, detail: str) -> Invalid:
    return Invalid.field(f"#/{name}", detail, ErrorCode.INIT_IMAGE_MISSING)
