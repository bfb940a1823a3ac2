"""Response models of the node: liveness, readiness, capabilities. Imports no services; pure."""

from typing import Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import NoiseScheduler, Response
from app.schemas.packs import PackRead
from app.schemas.problems import Problem

LoadingState = TypeAliasType("LoadingState", Literal["loading", "ready", "failed"])


class Liveness(Response):
    """The process is alive."""

    status: Literal["ok"]


class ModelState(Response):
    """The loading state of one model, with notes on its operation."""

    state: LoadingState
    detail: str | None
    note: str | None = Field(description="A hint for the operator about a model that works; null if there is none.")
    expected_wait_s: float | None = Field(
        ge=0, description="Estimated seconds until a new interactive request would start; null unless ready."
    )


class Readiness(Response):
    """All models are loaded and the database answers."""

    status: Literal["ready"]
    models: dict[str, ModelState]


class NotReady(Problem):
    """Why the node is not ready."""

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


class Capabilities(Response):
    """The models, formats and limits of this node."""

    version: str
    pack: PackRead
    models: dict[str, ModelState]
    device: str
    dtype: str
    noise_schedulers: list[NoiseScheduler]
    default_noise_scheduler: str
    limits: Limits
    versions: dict[str, str]
