"""From a request's settings to what is drawn: the loaded model's defaults, and what this node refuses.

Imports no engine, no files and no database. Pure functions; any thread may call them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.error_codes import ErrorCode
from app.errors import FieldError
from app.image_spec import ImageSpec
from app.schemas.generations import GenerateRequest, GenerationSettings, ImageSettings
from app.services.limits import Limits
from app.step_rows import SPACED_SCHEDULERS, TIMESTEP_SCHEDULERS, Speed


@dataclass(frozen=True, slots=True)
class SizeRules:
    """The sizes that the loaded diffusion model draws, in pixels, its own noise scheduler, and the speeds it has."""

    native: int
    min_side: int
    max_side: int
    default_scheduler: str
    speeds: tuple[Speed, ...] = ("exact", "balanced")


def resolve_settings(settings: ImageSettings, sizes: SizeRules) -> dict[str, Any]:
    """Return the settings by name, with the loaded model's own values where none were given; a range stays one."""
    values = settings.model_dump(include=set(GenerationSettings.model_fields))
    values["width"] = values["width"] or sizes.native
    values["height"] = values["height"] or sizes.native
    values["scheduler"] = values["scheduler"] or sizes.default_scheduler
    return values


def resolve_spec(request: GenerateRequest, sizes: SizeRules, *, seed: int) -> ImageSpec:
    """Return what the request's first image is drawn from.

    Args:
        request: As it came.
        sizes: The loaded model's.
        seed: The first image's; the request may have none.
    """
    settings = resolve_settings(request, sizes)
    return ImageSpec(prompt=request.prompt, negative_prompt=request.negative_prompt, seed=seed, **settings)


def settings_faults(values: dict[str, Any], sizes: SizeRules, limits: Limits, *, base: str = "#") -> list[FieldError]:
    """Return what this node refuses in resolved settings.

    Args:
        values: As `resolve_settings` or `ImageSpec.to_json` gives them.
        sizes: The loaded model's sizes.
        limits: The node's bounds.
        base: JSON Pointer of the object that held the settings.
    """
    faults = []
    for side in ("width", "height"):
        if not sizes.min_side <= values[side] <= sizes.max_side:
            detail = f"The side must be between {sizes.min_side} and {sizes.max_side} pixels for the loaded model."
            faults.append(FieldError(f"{base}/{side}", detail, ErrorCode.SIZE_NOT_SUPPORTED))
    steps = values["num_inference_steps"]
    if (steps["max"] if isinstance(steps, dict) else steps) > limits.num_inference_steps:
        detail = f"This must be at most {limits.num_inference_steps} on this node."
        faults.append(FieldError(f"{base}/num_inference_steps", detail, ErrorCode.TOO_MANY_STEPS))
    return faults + _schedule_faults(values, sizes, base)


def _schedule_faults(values: dict[str, Any], sizes: SizeRules, base: str) -> list[FieldError]:
    """Return what the loaded model or the noise scheduler does not have of speeds and timesteps."""
    faults = []
    if (speed := values.get("speed", "exact")) not in sizes.speeds:
        detail = f"The loaded model has no speed {speed}. It has {', '.join(sizes.speeds)}."
        faults.append(FieldError(f"{base}/speed", detail, ErrorCode.SPEED_NOT_OFFERED))
    supporting = {"timestep_spacing": SPACED_SCHEDULERS, "timesteps": TIMESTEP_SCHEDULERS}
    for name, schedulers in supporting.items():
        if values.get(name) is not None and values["scheduler"] not in schedulers:
            detail = f"{values['scheduler']} has its own timesteps. Leave this out, or take another scheduler."
            faults.append(FieldError(f"{base}/{name}", detail, ErrorCode.TIMESTEPS_NOT_SUPPORTED))
    return faults


def spec_faults(spec: ImageSpec, num_images: int, sizes: SizeRules, limits: Limits) -> list[FieldError]:
    """Return what this node refuses in a request for images of this spec that differ in their seeds alone.

    Args:
        spec: The first image's.
        num_images: Images of the request, >= 1.
        sizes: The loaded model's sizes.
        limits: The node's bounds.
    """
    faults = settings_faults(spec.to_json(), sizes, limits)
    work = num_images * spec.pixel_steps
    if work > limits.work_pixel_steps:
        detail = (
            f"Images x steps x width x height is {work}, where a step without guidance counts half. "
            f"It must be at most {limits.work_pixel_steps}."
        )
        faults.append(FieldError("#", detail, ErrorCode.WORK_TOO_LARGE))
    texts = (("#/prompt", spec.prompt), ("#/negative_prompt", spec.negative_prompt))
    return faults + prompt_length_faults([(pointer, len(text)) for pointer, text in texts], limits)


def prompt_length_faults(lengths: Sequence[tuple[str, int]], limits: Limits) -> list[FieldError]:
    """Return a fault for each (pointer, characters of a prompt) above the node's bound."""
    detail = f"This must have at most {limits.prompt_chars} characters on this node."
    return [
        FieldError(pointer, detail, ErrorCode.PROMPT_TOO_LONG)
        for pointer, length in lengths
        if length > limits.prompt_chars
    ]
