"""Response models of lineages: what an image and a model were made from. Imports no services; pure.

A release records what it knows, so a member that was not recorded is left out or null. A new member of an image's or a
model's record needs its field here, else answers leave it out.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from app.schemas.common import (
    GuidanceInterval,
    ImageFormat,
    NoiseScheduler,
    PromptSyntax,
    Recorded,
    Response,
    Speed,
    Timesteps,
    TimestepSpacing,
)
from app.schemas.heads import FineTuningRead, HeadRead, OptimizerRead, ValidationRead, ViewsRead
from app.schemas.source_images import SourceImageRead


class RedrawnFor(Response):
    """The image that a repair could not restore byte by byte, and that this one replaces."""

    id: str
    sha256: str


class LoraRecord(Response):
    """A LoRA and the weight that it had."""

    name: str
    weight: float


class ImageLineage(Recorded):
    """How a stored image came to be; without what does not apply, or was not recorded."""

    prompt: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float | None = None
    num_inference_steps: int | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    scheduler: NoiseScheduler | None = None
    output_format: ImageFormat | None = None
    speed: Speed | None = Field(None, description="Left out: `exact`.")
    forecast: str | None = Field(
        None, description="With a `speed`: what stood in for the steps that were not computed; null: all were computed."
    )
    few_step_sha256: str | None = Field(None, description="With speed `fast`: SHA-256 of the pack's few-step weights.")
    timestep_spacing: TimestepSpacing | None = Field(None, description="Left out: the pack's own.")
    timesteps: Timesteps | None = None
    guidance_interval: GuidanceInterval | None = Field(None, description="Left out: guidance at every step.")
    init_image: SourceImageRead | None = Field(None, description="The picture that it was made from.")
    mask: SourceImageRead | None = Field(None, description="Where that was repainted, after inverting and blurring.")
    strength: float | None = None
    mask_blur: float | None = None
    mask_invert: bool | None = None
    prompt_syntax: PromptSyntax | None = Field(None, description="Left out: `plain`.")
    clip_skip: int | None = Field(None, description="Left out: no layer of the text encoder is left out.")
    best_of: int | None = Field(None, description="Of how many candidates it is among those with the best CLIP score.")
    loras: list[LoraRecord] | None = None
    embeddings: list[str] | None = None
    adapter_files: dict[str, str] | None = Field(None, description="SHA-256 of the files of LoRAs and embeddings.")
    model: str | None = Field(None, description="The diffusion model, as requests name it. Left out: the default one.")
    model_files: dict[str, str] | None = Field(None, description="SHA-256 of the files of weights of `model`.")
    pack: str | None = Field(None, description="Name of the model pack, or of `model`, that generated it.")
    pack_revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    num_threads: int | None = Field(None, description="Threads that the sampling used on a CPU.")
    deterministic: bool | None = None
    compiled: bool | None = None
    versions: dict[str, str] | None = Field(None, description="Versions of the libraries that the pixels depend on.")
    template: str | None = Field(None, description="The prompt of a recipe before its variables were filled in.")
    variables: dict[str, str] | None = Field(None, description="The values that the variables of `template` had.")
    attempt: int | None = Field(None, description="Which attempt at its slot of a dataset it was, from 0.")
    redrawn_for: RedrawnFor | None = None
    uploaded_sha256: str | None = Field(None, description="SHA-256 of the uploaded file, before it was re-encoded.")
    uploaded_bytes: int | None = Field(None, description="Size of the uploaded file.")


class DatasetLineage(Response):
    """The dataset that a model was trained on, as it was then."""

    id: str | None = None
    name: str | None = None
    num_images: int | None = Field(None, description="Of all splits.")
    num_real: int | None = Field(None, description="How many of them were uploaded.")
    version: str | None = Field(None, description="SHA-256 of the content: file hashes by split and class.")


class BackboneOrigin(Response):
    """The backbone that a fine-tuned one started from."""

    name: str
    weights_sha256: str


class PreprocessingPart(Recorded):
    """How a picture became a backbone's input, as in `GET /backbones`."""

    library: str | None = None
    resize: int | None = None
    crop: int | None = None
    crop_mode: str | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: Annotated[list[float], Field(max_length=16)] | None = None
    std: Annotated[list[float], Field(max_length=16)] | None = None


class BackbonePart(Recorded):
    """One of several backbones whose features are combined."""

    name: str | None = None
    architecture: str | None = None
    weights_sha256: str | None = None
    preprocessing: PreprocessingPart | None = None
    device: str | None = None
    dtype: str | None = None
    torch: str | None = None


class PreprocessingLineage(PreprocessingPart):
    """How a picture became a backbone's input: the settings, or `parts` with those of a combined backbone."""

    parts: Annotated[list[BackbonePart], Field(max_length=16)] | None = None


class BackboneLineage(Response):
    """The network whose features a model classifies."""

    name: str | None = None
    architecture: str | None = None
    weights_sha256: str | None = None
    preprocessing: PreprocessingLineage | None = None
    preprocessing_text: str | None = Field(
        None, description="The preprocessing in models of releases before 0.3, which recorded a text; else null."
    )
    device: str | None = Field(None, description="What computed the features: `cpu` or `cuda`.")
    dtype: str | None = None
    torch: str | None = Field(None, description="Version of the library.")
    fine_tuned_from: BackboneOrigin | None = Field(None, description="Null unless the backbone was fine-tuned.")

    @model_validator(mode="before")
    @classmethod
    def _text_apart(cls, values: object) -> object:
        """Put a preprocessing that is a text into its own field, so that neither field is a union."""
        if isinstance(values, dict) and isinstance(text := values.get("preprocessing"), str):
            return {**values, "preprocessing": None, "preprocessing_text": text}
        return values


class HeadWorth(Recorded):
    """What the head was worth that a fine-tuning started from."""

    solver: str | None = None
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    num_test: int | None = None


class TrainingLineage(Recorded):
    """How a model was trained: the settings of its train job."""

    method: Literal["linear_probe"] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: OptimizerRead | None = None
    seed: int | None = None
    head: HeadRead | None = None
    validation: ValidationRead | None = None
    augment: ViewsRead | None = None
    preset: Literal["from_prompts"] | None = None
    fine_tuning: FineTuningRead | None = None
    chosen: HeadRead | None = Field(None, description="The head's settings: those of the request, or a sweep's choice.")
    probe: HeadWorth | None = Field(None, description="Null unless the model was fine-tuned.")


class ModelLineage(Response):
    """What a model was made from; null where the release that trained it did not record it."""

    dataset: DatasetLineage | None = None
    backbone: BackboneLineage | None = None
    training: TrainingLineage | None = None
