"""Response models of the node: liveness, readiness, capabilities. Imports no services; pure."""

from typing import Any, Literal

from pydantic import Field

from app.image_spec import NoiseSchedulerName
from app.schemas.common import Response


class Liveness(Response):
    """The process is alive."""

    status: Literal["ok"]


class ModelState(Response):
    """The loading state of one model, with notes on its operation."""

    state: Literal["loading", "ready", "failed"]
    detail: str | None
    note: str | None = Field(description="A hint for the operator about a model that works; null if there is none.")
    expected_wait_s: float | None = Field(
        ge=0, description="Estimated seconds until a new interactive request would start; null unless ready."
    )


class Readiness(Response):
    """All models are loaded and the database answers."""

    status: Literal["ready"]
    models: dict[str, ModelState]


class Limits(Response):
    """The limits of the running node; they are at most those of this document."""

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
    """The served model pack; `quality` holds measurements of its weights, `made` their origin."""

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
    """The models, formats and limits of this node."""

    version: str
    pack: PackRead
    models: dict[str, ModelState]
    device: str
    dtype: str
    noise_schedulers: list[NoiseSchedulerName]
    default_noise_scheduler: str
    limits: Limits
    versions: dict[str, str]
