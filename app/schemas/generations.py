"""Images from a prompt: what `/generate` takes and what it and `/generations` answer."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from app.schemas.common import (
    MAX_LABELS,
    GuidanceInterval,
    GuidanceScale,
    ImageFormat,
    Label,
    NegativePrompt,
    NoiseScheduler,
    NumInferenceSteps,
    Page,
    Prompt,
    Request,
    Response,
    Seed,
    Side,
    Speed,
    Timesteps,
    TimestepSpacing,
    UtcTime,
)
from app.schemas.problems import Problem

ResponseFormat = TypeAliasType(
    "ResponseFormat",
    Annotated[Literal["url", "b64_json"], Field(description="`b64_json` adds the bytes of the images to the answer.")],
)


class ImageSettings(Request):
    """What an image is, whatever it shows; shared with datasets."""

    width: Side | None = Field(None, description="Default: the loaded model's own width.")
    height: Side | None = Field(None, description="Default: the loaded model's own height.")
    scheduler: NoiseScheduler | None = Field(None, description="Noise scheduler; default: the loaded model's own.")
    output_format: ImageFormat = "png"
    speed: Speed = "exact"
    timestep_spacing: TimestepSpacing | None = Field(None, description="Default: the loaded model's own.")
    guidance_interval: GuidanceInterval | None = Field(None, description="Default: guidance at every step.")


class GenerationSettings(ImageSettings):
    """How an image is made, whatever its prompt."""

    guidance_scale: GuidanceScale = 7.5
    num_inference_steps: NumInferenceSteps = 50
    timesteps: Timesteps | None = Field(None, description="Default: by `timestep_spacing`.")

    @model_validator(mode="after")
    def _one_schedule(self) -> "GenerationSettings":
        """Take the number of steps from the timesteps, and refuse what contradicts them."""
        if self.timesteps is None:
            return self
        if self.timestep_spacing is not None:
            raise PydanticCustomError("one_schedule", "Give timesteps or timestep_spacing, not both.")
        if "num_inference_steps" in self.model_fields_set and self.num_inference_steps != len(self.timesteps):
            raise PydanticCustomError(
                "one_schedule", "num_inference_steps must be the number of timesteps, or be left out."
            )
        self.num_inference_steps = len(self.timesteps)
        return self


class GenerateImageRequest(GenerationSettings):
    """A prompt and how to turn it into one image; only `prompt` is required."""

    prompt: Prompt
    negative_prompt: NegativePrompt = ""
    seed: Seed | None = Field(None, description="Default: one is drawn and returned.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "a watercolor painting of a red fox", "num_inference_steps": 25, "seed": 42},
                {"prompt": "a watercolor painting of a red fox", "speed": "balanced", "timestep_spacing": "trailing"},
            ]
        }
    )


class GenerateRequest(GenerateImageRequest):
    """A prompt and how to turn it into images; only `prompt` is required."""

    num_images_per_prompt: Annotated[int, Field(strict=True, ge=1, le=16, description="Image k has seed + k.")] = 1
    response_format: ResponseFormat = "url"
    labels: Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS)] | None = Field(
        None, description="Score each image against these labels with CLIP."
    )


class ModelRef(Response):
    """Which model answered: of a pack (`id` null) or trained here."""

    id: str | None
    name: str
    revision: str


class LabelProbability(Response):
    """How probable a label is among those asked for."""

    label: str
    probability: float = Field(ge=0, le=1)


class WarningRead(Response):
    """Something the client should know about a request that was answered all the same."""

    code: str = Field(description="`prompt_truncated`, `negative_prompt_truncated` or `single_label`; more may come.")
    detail: str


class GeneratedImageRead(Response):
    """One image of a generation."""

    id: str
    url: str
    seed: int
    width: int
    height: int
    format: ImageFormat
    sha256: str
    b64_json: str | None = Field(description="The bytes in base64, if `response_format` asked for them.")
    flagged: bool | None = Field(description="The safety checker's word; null where the pack has none.")
    clip_score: float | None = Field(description="100 · max(cosine(image, prompt), 0); filled when `labels` are given.")
    label_probabilities: list[LabelProbability] | None


class GenerationTimings(Response):
    """Where the time of a generation went, summed over its images."""

    queued_ms: float
    denoising_ms: float
    decoding_ms: float


class GenerationParameters(Response):
    """Every value as used: a request with these gives the same images."""

    prompt: str
    negative_prompt: str
    guidance_scale: float
    num_inference_steps: int
    num_images_per_prompt: int
    width: int
    height: int
    seed: int
    scheduler: NoiseScheduler
    output_format: ImageFormat
    labels: list[str] | None
    speed: Speed = "exact"
    timestep_spacing: TimestepSpacing | None = Field(None, description="Null: the loaded model's own.")
    timesteps: Timesteps | None = Field(None, description="Null: by `timestep_spacing`.")
    guidance_interval: GuidanceInterval | None = Field(None, description="Null: guidance at every step.")


class GenerationRead(Response):
    """An answered `/generate` request."""

    kind: Literal["generation"] = Field("generation", description="Tells it from a job and from other events.")
    id: str
    created_at: UtcTime
    model: ModelRef
    parameters: GenerationParameters
    images: list[GeneratedImageRead]
    warnings: list[WarningRead]
    timings: GenerationTimings


class GenerationPage(Page[GenerationRead]):
    """A page of generations, newest first."""


class GenerationProgress(Response):
    """How far an image of a request under way has come: the data of a `progress` event."""

    kind: Literal["progress"] = "progress"
    image: int = Field(ge=0, le=15, description="Which of the request's images, from 0; its seed is `seed` + `image`.")
    step: int = Field(ge=0, description="Denoising steps done; 0: it waits for its first.")
    steps: int = Field(
        ge=1,
        description="Steps that run the model; `pndm` takes one more than `num_inference_steps`, `balanced` fewer.",
    )
    num_images: int = Field(ge=1, le=16, description="Images of the request.")


class GenerationFailure(Problem):
    """Why a request under way failed: the data of an `error` event."""

    kind: Literal["error"]


GenerationEvent = TypeAliasType(
    "GenerationEvent",
    Annotated[
        GenerationProgress | GenerationRead | GenerationFailure,
        Field(discriminator="kind", description="The data of a server-sent event of a request under way."),
    ],
)
