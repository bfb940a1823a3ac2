"""Response models of the node: liveness, readiness, capabilities. Imports no services; pure."""

from typing import Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import NoiseScheduler, Recorded, Response, Speed, TimestepSpacing
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


class SpeedMeasurement(Recorded):
    """What a speed was measured to do to a pack's images, with a noise scheduler; by `python -m bench.speed`."""

    scheduler: NoiseScheduler | None = None
    num_inference_steps: int | None = None
    prompts: int | None = Field(None, description="How many images were compared.")
    rows: int | None = Field(None, description="UNet rows of an image.")
    rows_exact: int | None = Field(None, description="The same at `exact`.")
    psnr_db: float | None = Field(None, description="Mean PSNR to the same image at `exact`, in dB.")
    clip_score: float | None = Field(None, description="Mean of 100 x cosine of image and prompt.")
    clip_score_exact: float | None = None
    clip_class_accuracy: float | None = Field(None, description="Share whose class CLIP recognises.")
    clip_class_accuracy_exact: float | None = None
    judge_accuracy: float | None = Field(None, description="Share whose class an independent classifier recognises.")
    judge_accuracy_exact: float | None = None


class SpeedRead(Response):
    """A speed that this node offers."""

    name: Speed
    measured: list[SpeedMeasurement] = Field(description="On the loaded pack; empty where nothing was measured.")


class Capabilities(Response):
    """The models, formats and limits of this node."""

    version: str
    pack: PackRead
    models: dict[str, ModelState]
    device: str
    dtype: str
    noise_schedulers: list[NoiseScheduler]
    default_noise_scheduler: str
    speeds: list[SpeedRead]
    timestep_spacings: list[TimestepSpacing]
    limits: Limits
    versions: dict[str, str]
