"""The service itself: what is loaded, what it can do, whether it is ready."""

from typing import Any, Literal

from pydantic import Field

from app.image_spec import NoiseSchedulerName
from app.schemas.common import Response


class Liveness(Response):
    """The process answers."""

    status: Literal["ok"]


class ModelState(Response):
    """One model's state of loading, and how it serves."""

    state: Literal["loading", "ready", "failed"]
    detail: str | None
    note: str | None = Field(description="What an operator should know of a model that serves all the same.")
    expected_wait_s: float | None = Field(
        ge=0, description="Seconds until a new interactive request would begin, estimated; null unless ready."
    )


class Readiness(Response):
    """Everything is loaded and reachable."""

    status: Literal["ready"]
    models: dict[str, ModelState]


class Limits(Response):
    """The bounds of the running node, at most those of this file."""

    prompt_chars: int
    num_inference_steps: int
    num_images_per_prompt: int
    min_side: int
    max_side: int
    side_multiple: int
    work_pixel_steps: int
    dataset_images: int
    recipe_bytes: int
    upload_bytes: int
    upload_pixels: int
    queue_size: int
    queued_jobs: int


class PackRead(Response):
    """The model pack that is served; `quality` is what was measured on its weights, `made` how they came to be."""

    name: str
    revision: str
    licence: str
    native_size: int
    classifier_classes: list[str]
    total_bytes: int
    files: int
    quality: dict[str, Any]
    made: dict[str, Any]


class Capabilities(Response):
    """What this node can do."""

    version: str
    pack: PackRead
    models: dict[str, ModelState]
    device: str
    dtype: str
    noise_schedulers: list[NoiseSchedulerName]
    default_noise_scheduler: str
    limits: Limits
    versions: dict[str, str]
