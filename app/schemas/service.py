"""Response models of the node: liveness, readiness, capabilities. Imports no services; pure."""

from typing import Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from app.schemas.common import NoiseScheduler, Recorded, Response, Speed, TimestepSpacing
from app.schemas.packs import PackRead
from app.schemas.problems import Problem

DrawingMode = TypeAliasType("DrawingMode", Literal["text_to_image", "image_to_image", "inpainting"])
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
    clip_colour_accuracy: float | None = Field(None, description="Share whose colour CLIP recognises.")
    clip_colour_accuracy_exact: float | None = None
    judge_accuracy: float | None = Field(None, description="Share whose class an independent classifier recognises.")
    judge_accuracy_exact: float | None = None
    seconds_per_image: float | None = Field(None, description="Of one image alone, on two CPU cores in float32.")


class SpeedDefaults(Response):
    """What images of a speed are made with where a request does not give it."""

    num_inference_steps: int
    max_num_inference_steps: int = Field(description="More steps are refused.")
    guidance_scale: float
    scheduler: NoiseScheduler
    timestep_spacing: TimestepSpacing


class SpeedRead(Response):
    """A speed that this node offers."""

    name: Speed
    defaults: SpeedDefaults | None = Field(description="Of `fast`; null: those of every request.")
    measured: list[SpeedMeasurement] = Field(description="On the loaded pack; empty where nothing was measured.")


class LoraRead(Response):
    """A LoRA file of the node."""

    name: str
    num_bytes: int
    fits: bool = Field(description="Whether it can be used with the loaded model.")
    detail: str | None = Field(description="Why it cannot be used; null where it can.")
    rank: int | None = Field(description="The largest rank of its layers; null where it cannot be used.")


class EmbeddingRead(Response):
    """A textual-inversion embedding of the node."""

    name: str
    num_bytes: int
    fits: bool = Field(description="Whether it can be used with the loaded model.")
    detail: str | None = Field(description="Why it cannot be used; null where it can.")
    token: str | None = Field(description="What stands for it in a prompt; null where it cannot be used.")
    num_vectors: int | None = Field(description="How many of a prompt's 77 tokens it takes; null where unusable.")


class DrawingModel(Response):
    """A diffusion model of the node."""

    name: str = Field(description="What `model` of a request says; of the default one, null does too.")
    is_default: bool
    fits: bool = Field(description="Whether it can be used; `detail` of its state says why not.")
    is_loaded: bool = Field(description="Others are loaded when they are used.")
    native_size: int | None = Field(description="Side of the images that it was trained for; null if not usable.")
    min_side: int | None
    max_side: int | None
    modes: list[DrawingMode] = Field(description="What it begins an image with; an inpainting model needs a mask.")
    noise_schedulers: list[NoiseScheduler]
    default_noise_scheduler: NoiseScheduler | None
    prediction_type: str | None = Field(description="What its network predicts; null for the default one.")
    speeds: list[Speed]
    loras: list[str] = Field(description="LoRAs that fit it.")
    embeddings: list[str] = Field(description="Textual-inversion embeddings that fit it.")
    num_bytes: int | None = Field(description="Of its weights in memory; null for the default one.")
    step_ms: float | None = Field(
        description="Measured milliseconds of a guided step alone at the native size; null if not known yet."
    )


class NodeModel(ModelState):
    """One model of the node."""

    drawing: DrawingModel | None = Field(description="Of a diffusion model, which `model` of a request names.")


class Capabilities(Response):
    """The models, formats and limits of this node."""

    version: str
    pack: PackRead
    models: dict[str, NodeModel] = Field(
        description="Those of `/readyz`, where `diffusion` is the default diffusion model, and further diffusion "
        "models by their names, which are loaded when a request names them."
    )
    device: str
    dtype: str
    modes: list[DrawingMode] = Field(
        ["text_to_image", "image_to_image", "inpainting"], description="What `/generate` begins an image with."
    )
    noise_schedulers: list[NoiseScheduler]
    default_noise_scheduler: str
    speeds: list[SpeedRead]
    timestep_spacings: list[TimestepSpacing]
    loras: list[LoraRead]
    embeddings: list[EmbeddingRead]
    limits: Limits
    versions: dict[str, str]
