"""Images from a prompt: what `/generate` takes and what it and `/generations` answer."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from app.schemas.common import (
    MAX_LABELS,
    AdapterName,
    ClipSkip,
    DrawingModelName,
    GuidanceInterval,
    GuidanceScale,
    ImageFormat,
    Label,
    LoraWeight,
    NegativePrompt,
    NoiseScheduler,
    NumInferenceSteps,
    Page,
    Preview,
    Prompt,
    PromptSyntax,
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
from app.schemas.source_images import SAMPLE_PNG, ImageToImageFields, ImageToImageRead, SourceImage, Strength

ResponseFormat = TypeAliasType(
    "ResponseFormat",
    Annotated[Literal["url", "b64_json"], Field(description="`b64_json` adds the bytes of the images to the answer.")],
)


BestOf = Annotated[int, Field(strict=True, ge=1, le=16)]


class LoraUse(Request):
    """A LoRA and its weight."""

    name: AdapterName
    weight: LoraWeight = 1.0


class LoraUseRead(Response):
    """A LoRA and its weight."""

    name: str
    weight: float


Loras = Annotated[
    list[LoraUse], Field(max_length=8, description="LoRAs that are added to the weights of UNet and text encoder.")
]
Embeddings = Annotated[
    list[AdapterName],
    Field(
        max_length=16,
        description="Textual-inversion embeddings whose tokens stand in a prompt. One whose "
        "token is in angle brackets, such as `<cat-toy>`, need not be named.",
    ),
]


class ImageSettings(Request):
    """What an image is, whatever it shows; shared with datasets."""

    width: Side | None = Field(None, description="Default: the loaded model's own width.")
    height: Side | None = Field(None, description="Default: the loaded model's own height.")
    scheduler: NoiseScheduler | None = Field(None, description="Noise scheduler; default: the loaded model's own.")
    output_format: ImageFormat = "png"
    speed: Speed = "exact"
    timestep_spacing: TimestepSpacing | None = Field(None, description="Default: the loaded model's own.")
    guidance_interval: GuidanceInterval | None = Field(None, description="Default: guidance at every step.")
    loras: Loras = Field(default_factory=list)
    embeddings: Embeddings = Field(default_factory=list)
    model: DrawingModelName | None = Field(None, description="The diffusion model; default: the node's default one.")


class GenerationSettings(ImageSettings):
    """How an image is made, whatever its prompt."""

    guidance_scale: GuidanceScale = Field(7.5, description="Weight of the prompt; <= 1: none. With `fast`: 1.")
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


class GenerateImageRequest(ImageToImageFields, GenerationSettings):
    """A prompt and how to turn it into one image; only `prompt` is required."""

    prompt: Prompt
    negative_prompt: NegativePrompt = ""
    seed: Seed | None = Field(None, description="Default: one is drawn and returned.")
    prompt_syntax: PromptSyntax = "plain"
    clip_skip: ClipSkip | None = Field(None, description="Default: no layer is left out.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "a watercolor painting of a red fox", "num_inference_steps": 25, "seed": 42},
                {"prompt": "a watercolor painting of a red fox", "speed": "balanced", "timestep_spacing": "trailing"},
                {"prompt": "a pencil sketch of a red fox", "init_image": {"image_b64": SAMPLE_PNG}, "strength": 0.6},
            ]
        }
    )


class GenerateRequest(GenerateImageRequest):
    """A prompt and how to turn it into images; only `prompt` is required."""

    num_images_per_prompt: Annotated[int, Field(strict=True, ge=1, le=16, description="Image k has seed + k.")] = 1
    response_format: ResponseFormat = "url"
    best_of: BestOf | None = Field(
        None,
        description="Draw so many candidates, candidate k with seed + k, and keep `num_images_per_prompt`: those with "
        "the highest `clip_score`, best first. All count as drawn. Default: no choice.",
    )
    grid: Annotated[bool, Field(strict=True, description="Also answer with one sheet of all images.")] = False
    preview: Preview | None = Field(None, description="Every n-th step event has a preview. Default: none has.")
    labels: Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS)] | None = Field(
        None, description="Score each image against these labels with CLIP."
    )

    @property
    def num_candidates(self) -> int:
        """The images that are drawn."""
        return self.best_of or self.num_images_per_prompt


class RepeatRequest(Request):
    """What is to be different when a generation is repeated; what is left out or null stays as it was."""

    prompt: Prompt | None = None
    negative_prompt: NegativePrompt | None = None
    seed: Seed | None = None
    guidance_scale: GuidanceScale | None = None
    num_inference_steps: NumInferenceSteps | None = None
    num_images_per_prompt: Annotated[int, Field(strict=True, ge=1, le=16)] | None = None
    best_of: BestOf | None = None
    width: Side | None = None
    height: Side | None = None
    scheduler: NoiseScheduler | None = None
    speed: Speed | None = None
    timestep_spacing: TimestepSpacing | None = None
    timesteps: Timesteps | None = None
    guidance_interval: GuidanceInterval | None = None
    prompt_syntax: PromptSyntax | None = None
    clip_skip: ClipSkip | None = None
    output_format: ImageFormat | None = None
    grid: Annotated[bool, Field(strict=True)] | None = None
    labels: Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS)] | None = None
    loras: Loras | None = None
    embeddings: Embeddings | None = None
    model: DrawingModelName | None = None
    init_image: SourceImage | None = None
    mask: SourceImage | None = None
    strength: Strength | None = Field(
        None,
        description="As in `/generate`. Where the generation began with noise alone and no `init_image` is given, its "
        "own image is the picture to begin with.",
    )
    response_format: ResponseFormat = Field("url", description="Not kept: it is a matter of each answer.")
    preview: Preview | None = Field(None, description="Not kept, as `response_format`.")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"num_inference_steps": 50, "speed": "exact"}, {"seed": 7}, {"strength": 0.5}]}
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

    code: str = Field(
        description="`prompt_truncated`, `negative_prompt_truncated`, `single_label` or `fast_settings`; more may come."
    )
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
    clip_score: float | None = Field(
        description="100 · max(cosine(image, prompt), 0); filled with `labels` or `best_of`."
    )
    label_probabilities: list[LabelProbability] | None


class GridRead(Response):
    """One sheet of all images of a generation, in their order."""

    url: str
    width: int = Field(description="Of the sheet; sheets of large images are made smaller.")
    height: int
    b64_json: str | None = Field(description="The PNG in base64, if `response_format` asked for it.")


class GenerationTimings(Response):
    """Where the time of a generation went, summed over its images."""

    queued_ms: float
    denoising_ms: float
    decoding_ms: float


class GenerationParameters(ImageToImageRead):
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
    prompt_syntax: PromptSyntax = "plain"
    clip_skip: ClipSkip | None = Field(None, description="Null: no layer is left out.")
    best_of: int | None = Field(None, description="Candidates of which the images are the best; null: no choice.")
    grid: bool = False
    loras: list[LoraUseRead] = Field(default_factory=list)
    embeddings: list[str] = Field(default_factory=list)
    model: str | None = Field(None, description="Null: the node's default model.")


class GenerationRead(Response):
    """An answered `/generate` request."""

    kind: Literal["generation"] = Field("generation", description="Tells it from a job and from other events.")
    id: str
    created_at: UtcTime
    model: ModelRef
    parameters: GenerationParameters
    images: list[GeneratedImageRead]
    grid: GridRead | None = Field(None, description="If the request asked for it.")
    warnings: list[WarningRead]
    timings: GenerationTimings


class GenerationPage(Page[GenerationRead]):
    """A page of generations, newest first."""


class GenerationProgress(Response):
    """How far an image of a request under way has come: the data of a `progress` event."""

    kind: Literal["progress"] = "progress"
    image: int = Field(
        ge=0,
        le=15,
        description="Which of the request's images (of the candidates of `best_of`), from 0; its seed is `seed` + it.",
    )
    step: int = Field(ge=0, description="Denoising steps done; 0: it waits for its first.")
    steps: int = Field(
        ge=1,
        description="Steps that run the model; `pndm` takes one more than `num_inference_steps`, `balanced` fewer.",
    )
    num_images: int = Field(ge=1, le=16, description="Images of the request; with `best_of`, candidates.")
    preview_step: int | None = Field(None, description="The step that the preview is of; null without one.")
    preview_png_b64: str | None = Field(
        None, description="With `preview`: a PNG of what the step predicts, 1/8 of the image's width and height."
    )


class GenerationQueued(Response):
    """How many requests go before one that waits: the data of a `queued` event."""

    kind: Literal["queued"] = "queued"
    position: int = Field(
        ge=0,
        description="Requests to this node's engine, one an image, that go before the first image of this one; those "
        "that are being drawn count too. 0: it is next.",
    )


class GenerationFailure(Problem):
    """Why a request under way failed: the data of an `error` event."""

    kind: Literal["error"]


GenerationEvent = TypeAliasType(
    "GenerationEvent",
    Annotated[
        GenerationProgress | GenerationQueued | GenerationRead | GenerationFailure,
        Field(discriminator="kind", description="The data of a server-sent event of a request under way."),
    ],
)
