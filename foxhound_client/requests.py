"""The JSON bodies that a Foxhound service takes, as TypedDicts; clients/python.py writes this file.

Imports nothing but typing.
"""

from typing import Literal, Required, TypedDict


NoiseScheduler = Literal["pndm", "ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "tcd"]


ImageFormat = Literal["png", "jpeg", "webp"]


Speed = Literal["exact", "balanced", "fast"]


TimestepSpacing = Literal["leading", "trailing", "linspace"]


class LoraUse(TypedDict, total=False):
    """A LoRA and its weight."""

    name: Required[str]
    weight: float


class SourceImage(TypedDict, total=False):
    """A picture: exactly one of `image_id` and `image_b64`."""

    image_id: str | None
    image_b64: str | None
    sha256: str | None


PromptSyntax = Literal["plain", "weighted"]


ResponseFormat = Literal["url", "b64_json"]


class GenerateRequest(TypedDict, total=False):
    """A prompt and how to turn it into images; only `prompt` is required."""

    width: int | None
    height: int | None
    scheduler: NoiseScheduler | None
    output_format: ImageFormat
    speed: Speed
    timestep_spacing: TimestepSpacing | None
    guidance_interval: list[float] | None
    loras: list[LoraUse]
    embeddings: list[str]
    model: str | None
    guidance_scale: float
    num_inference_steps: int
    timesteps: list[int] | None
    init_image: SourceImage | None
    mask: SourceImage | None
    strength: float | None
    mask_blur: float
    mask_invert: bool
    prompt: Required[str]
    negative_prompt: str | None
    seed: int | None
    prompt_syntax: PromptSyntax
    clip_skip: int | None
    num_images_per_prompt: int
    response_format: ResponseFormat
    best_of: int | None
    grid: bool
    preview: int | None
    labels: list[str] | None


class GenerateImageRequest(TypedDict, total=False):
    """A prompt and how to turn it into one image; only `prompt` is required."""

    width: int | None
    height: int | None
    scheduler: NoiseScheduler | None
    output_format: ImageFormat
    speed: Speed
    timestep_spacing: TimestepSpacing | None
    guidance_interval: list[float] | None
    loras: list[LoraUse]
    embeddings: list[str]
    model: str | None
    guidance_scale: float
    num_inference_steps: int
    timesteps: list[int] | None
    init_image: SourceImage | None
    mask: SourceImage | None
    strength: float | None
    mask_blur: float
    mask_invert: bool
    prompt: Required[str]
    negative_prompt: str | None
    seed: int | None
    prompt_syntax: PromptSyntax
    clip_skip: int | None


class RepeatRequest(TypedDict, total=False):
    """What is to be different when a generation is repeated; what is left out or null stays as it was."""

    prompt: str | None
    negative_prompt: str | None | None
    seed: int | None
    guidance_scale: float | None
    num_inference_steps: int | None
    num_images_per_prompt: int | None
    best_of: int | None
    width: int | None
    height: int | None
    scheduler: NoiseScheduler | None
    speed: Speed | None
    timestep_spacing: TimestepSpacing | None
    timesteps: list[int] | None
    guidance_interval: list[float] | None
    prompt_syntax: PromptSyntax | None
    clip_skip: int | None
    output_format: ImageFormat | None
    grid: bool | None
    labels: list[str] | None
    loras: list[LoraUse] | None
    embeddings: list[str] | None
    model: str | None
    init_image: SourceImage | None
    mask: SourceImage | None
    strength: float | None
    response_format: ResponseFormat
    preview: int | None


class ClipScoreRequest(TypedDict, total=False):
    """An image and the labels to score it against."""

    image_id: str | None
    image_b64: str | None
    image_ids: list[str] | None
    labels: Required[list[str]]
    template: str | None


class ClassifyRequest(TypedDict, total=False):
    """An image and how to classify it."""

    image_id: str | None
    image_b64: str | None
    image_ids: list[str] | None
    top_k: int
    model: str | None
    explain: bool
    nearest: int | None


class DatasetClass(TypedDict, total=False):
    """A class and its prompts, which are used in turn."""

    name: Required[str]
    prompts: list[str]
    negative_prompt: str | None
    label: str | None
    from_images: list[str]


PresetName = Literal["diverse", "from_prompts"]


class GuidanceRange(TypedDict, total=False):
    """A random guidance scale for each image, drawn from min, min + 0.1, ..., max."""

    min: Required[float]
    max: Required[float]


GuidanceChoice = float | GuidanceRange


class StepsRange(TypedDict, total=False):
    """A random number of steps for each image, drawn from min, min + 1, ..., max."""

    min: Required[int]
    max: Required[int]


StepsChoice = int | StepsRange


class StrengthRange(TypedDict, total=False):
    """A random strength for each image, drawn from min, min + 0.05, ..., max."""

    min: Required[float]
    max: Required[float]


StrengthChoice = float | StrengthRange


class RecipeSettings(TypedDict, total=False):
    """Settings of a dataset's images."""

    width: int | None
    height: int | None
    scheduler: NoiseScheduler | None
    output_format: ImageFormat
    speed: Speed
    timestep_spacing: TimestepSpacing | None
    guidance_interval: list[float] | None
    loras: list[LoraUse]
    embeddings: list[str]
    model: str | None
    guidance_scale: GuidanceChoice
    num_inference_steps: StepsChoice
    strength: StrengthChoice | None


Combine = Literal["cartesian", "sampled"]


class ClipFilter(TypedDict, total=False):
    """Keep an image if CLIP's probability of its own class, among the texts of all classes, is at least `threshold`."""

    threshold: float | None


class DatasetCreate(TypedDict, total=False):
    """A dataset to generate: classes, number of images of each, and the recipe."""

    name: Required[str]
    seed: int | None
    classes: Required[list[DatasetClass]]
    train_per_class: int
    validation_per_class: int
    test_per_class: int
    preset: PresetName | None
    generation: RecipeSettings
    variables: dict[str, list[str]]
    combine: Combine
    filter: ClipFilter | None
    max_attempts: int | None


class DatasetExtend(TypedDict, total=False):
    """The number of images to add to each class of a dataset, by its own recipe."""

    train_per_class: int
    validation_per_class: int
    test_per_class: int


Review = Literal["accepted", "rejected"]


class ImageReview(TypedDict, total=False):
    """What a person decides about an image of a dataset."""

    review: Required[Review | None]


class OptimizerSettings(TypedDict, total=False):
    """Settings of the SGD optimizer; those of a request without `head`."""

    name: Literal["sgd"]
    lr: float
    momentum: float


Solver = Literal["sgd", "adamw", "lbfgs", "ridge", "prototypes", "sweep"]


Schedule = Literal["constant", "cosine", "step"]


SweepSolver = Literal["sgd", "adamw", "lbfgs"]


class HeadCreate(TypedDict, total=False):
    """How the head is trained on the backbone's features; `epochs` and `batch_size` are those of the train job."""

    solver: Solver
    lr: float
    momentum: float
    weight_decay: float
    c: float
    alpha: float
    schedule: Schedule
    warmup_epochs: int
    class_weights: Literal["balanced"] | None
    label_smoothing: float
    sweep_solver: SweepSolver


class ValidationCreate(TypedDict, total=False):
    """The part of each class's training images that settings are chosen by, and that is not trained on."""

    fraction: float


class EarlyStoppingCreate(TypedDict, total=False):
    """Training stops when the validation loss has not fallen; the best epoch's head is kept (sgd, adamw)."""

    patience: int


class AugmentCreate(TypedDict, total=False):
    """Further views of each training image, as additional training rows."""

    flip: bool
    crops: int


FineTuneMode = Literal["head", "last_block", "all"]


class TrainJobCreate(TypedDict, total=False):
    """A dataset, existing or to be generated, and the training settings."""

    dataset_id: str | None
    dataset: DatasetCreate | None
    name: str | None
    backbone: str | None
    preset: Literal["from_prompts"] | None
    method: Literal["linear_probe"]
    epochs: int
    batch_size: int
    optimizer: OptimizerSettings
    head: HeadCreate | None
    validation: ValidationCreate | None
    early_stopping: EarlyStoppingCreate | None
    augment: AugmentCreate | None
    fine_tune: FineTuneMode | None
    seed: int
    allow_incomplete: bool


Split = Literal["train", "validation", "test"]


class EvaluationCreate(TypedDict, total=False):
    """A dataset to evaluate a model on."""

    dataset_id: Required[str]
    split: Split


KeyScope = Literal["read", "generate", "datasets", "train", "admin"]


class KeyLimits(TypedDict, total=False):
    """The bounds of a key; null: the setting of each node."""

    requests_per_minute: int | None
    concurrent_requests: int | None
    concurrent_images: int | None
    pixel_steps_per_day: int | None
    stored_mb: int | None


class KeyCreate(TypedDict, total=False):
    """A key to create."""

    name: Required[str]
    scopes: Required[list[KeyScope]]
    expires_in_days: int | None
    limits: KeyLimits


class KeyChange(TypedDict, total=False):
    """What of a key is changed."""

    limits: Required[KeyLimits]
