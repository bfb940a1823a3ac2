"""What one image is made from, every value settled; travels between processes as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from app.error_codes import ErrorCode
from app.errors import FieldError
from app.schemas.common import OutputFormat
from app.schemas.generations import ImageSettings
from app.services.limits import Limits


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """One image to make: two equal specs on the same models give the same file."""

    prompt: str
    negative_prompt: str
    guidance_scale: float
    num_inference_steps: int
    width: int
    height: int
    seed: int
    scheduler: str
    output_format: OutputFormat

    def with_seed(self, seed: int) -> "ImageSpec":
        """Return the same image under another seed."""
        return replace(self, seed=seed)

    def to_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """One image as a file in memory, with what is known of it."""

    data: bytes
    sha256: str
    flagged: bool | None
    lineage: dict[str, Any]
    warnings: list[dict[str, str]] = field(default_factory=list)
    timings: dict[str, float] = field(default_factory=dict)
    clip_score: float | None = None
    label_probabilities: list[dict[str, Any]] | None = None
    # CLIP's embedding of the image, little-endian float16 in base64: two bytes a number, and plain JSON.
    clip_embedding: str | None = None

    def info(self) -> dict[str, Any]:
        """Return everything but the bytes, as plain JSON values, and how many bytes they are."""
        info = {key: value for key, value in asdict(self).items() if key != "data"}
        return {**info, "num_bytes": len(self.data)}


@dataclass(frozen=True, slots=True)
class SizeRules:
    """What sizes the loaded diffusion model draws, in pixels, and its own defaults."""

    native: int
    min_side: int
    max_side: int
    default_scheduler: str


def settle(settings: ImageSettings, sizes: SizeRules) -> dict[str, Any]:
    """Return the settings with the loaded model's own values where none were given; a range stays one."""
    values = settings.model_dump(
        include={"guidance_scale", "num_inference_steps", "width", "height", "scheduler", "output_format"}
    )
    values["width"] = values["width"] or sizes.native
    values["height"] = values["height"] or sizes.native
    values["scheduler"] = values["scheduler"] or sizes.default_scheduler
    return values


def faults_of(values: dict[str, Any], sizes: SizeRules, limits: Limits, *, base: str = "#") -> list[FieldError]:
    """Return what this node refuses in settled settings.

    Args:
        values: As `settle` gives them.
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
    return faults


def work_fault(values: dict[str, Any], num_images: int, limits: Limits) -> list[FieldError]:
    """Return the fault of a request whose images x steps x pixels exceed the node's bound, if it does."""
    work = num_images * values["num_inference_steps"] * values["width"] * values["height"]
    if work <= limits.work_pixel_steps:
        return []
    detail = f"Images x steps x width x height is {work}. It must be at most {limits.work_pixel_steps}."
    return [FieldError("#", detail, ErrorCode.WORK_TOO_LARGE)]


def prompt_faults(prompts: Sequence[tuple[str, str]], limits: Limits) -> list[FieldError]:
    """Return a fault for each (pointer, prompt) longer than the node's bound."""
    return prompt_length_faults([(pointer, len(text)) for pointer, text in prompts], limits)


def prompt_length_faults(lengths: Sequence[tuple[str, int]], limits: Limits) -> list[FieldError]:
    """Return a fault for each (pointer, characters of a prompt) above the node's bound."""
    detail = f"This must have at most {limits.prompt_chars} characters on this node."
    return [
        FieldError(pointer, detail, ErrorCode.PROMPT_TOO_LONG)
        for pointer, length in lengths
        if length > limits.prompt_chars
    ]
