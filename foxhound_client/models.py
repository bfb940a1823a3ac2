"""The answers of a Foxhound service, as pydantic models; clients/python.py writes this file.

Unknown members are kept: a later version of the service may add some. Imports nothing but pydantic.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Answer(BaseModel):
    """What all answers share."""

    model_config = ConfigDict(extra="allow", protected_namespaces=())


class ModelRef(Answer):
    """Which model answered: of a pack (`id` null) or trained here."""

    id: str | None
    name: str
    revision: str


class SourceImageRead(Answer):
    """A picture that an image was made from."""

    sha256: str
    image_id: str | None


NoiseScheduler = Literal["pndm", "ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc", "lcm", "tcd"]


ImageFormat = Literal["png", "jpeg", "webp"]


Speed = Literal["exact", "balanced", "fast"]


TimestepSpacing = Literal["leading", "trailing", "linspace"]


PromptSyntax = Literal["plain", "weighted"]


class LoraUseRead(Answer):
    """A LoRA and its weight."""

    name: str
    weight: float


class GenerationParameters(Answer):
    """Every value as used: a request with these gives the same images."""

    init_image: SourceImageRead | None
    mask: SourceImageRead | None
    strength: float | None
    mask_blur: float
    mask_invert: bool
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
    speed: Speed
    timestep_spacing: TimestepSpacing | None
    timesteps: list[int] | None
    guidance_interval: list[float] | None
    prompt_syntax: PromptSyntax
    clip_skip: int | None
    best_of: int | None
    grid: bool
    loras: list[LoraUseRead]
    embeddings: list[str]
    model: str | None


class LabelProbability(Answer):
    """How probable a label is among those asked for."""

    label: str
    probability: float


class GeneratedImageRead(Answer):
    """One image of a generation."""

    id: str
    url: str
    seed: int
    width: int
    height: int
    format: ImageFormat
    sha256: str
    b64_json: str | None
    flagged: bool | None
    clip_score: float | None
    label_probabilities: list[LabelProbability] | None


class GridRead(Answer):
    """One sheet of all images of a generation, in their order."""

    url: str
    width: int
    height: int
    b64_json: str | None


class WarningRead(Answer):
    """Something the client should know about a request that was answered all the same."""

    code: str
    detail: str


class GenerationTimings(Answer):
    """Where the time of a generation went, summed over its images."""

    queued_ms: float
    denoising_ms: float
    decoding_ms: float


class GenerationRead(Answer):
    """An answered `/generate` request."""

    kind: Literal["generation"]
    id: str
    created_at: datetime
    model: ModelRef
    parameters: GenerationParameters
    images: list[GeneratedImageRead]
    grid: GridRead | None
    warnings: list[WarningRead]
    timings: GenerationTimings


class GenerationProgress(Answer):
    """How far an image of a request under way has come: the data of a `progress` event."""

    kind: Literal["progress"]
    image: int
    step: int
    steps: int
    num_images: int
    preview_step: int | None
    preview_png_b64: str | None


class GenerationQueued(Answer):
    """How many requests go before one that waits: the data of a `queued` event."""

    kind: Literal["queued"]
    position: int


ErrorCode = str


class ProblemField(Answer):
    """One fault of an invalid request."""

    pointer: str
    detail: str
    code: str


class GenerationFailure(Answer):
    """Why a request under way failed: the data of an `error` event."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: ErrorCode
    request_id: str
    dataset_id: str | None = None
    existing_id: str | None = None
    scope: str | None = None
    errors: list[ProblemField] | None = None
    kind: Literal["error"]


GenerationEvent = Annotated[GenerationProgress | GenerationQueued | GenerationRead | GenerationFailure, Field(discriminator="kind")]


JobStatus = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


class Progress(Answer):
    """Progress of a job."""

    done: int
    total: int
    unit: str
    phase: str | None
    rate_per_minute: float | None
    estimated_finish_at: datetime | None


class JobError(Answer):
    """The reason why a job failed: a problem without the fields of a request."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemField] | None


class GenerateResult(Answer):
    """The result of a `generate` job."""

    generation_id: str


class JobPreview(Answer):
    """What an image of a job under way will look like."""

    image: int
    step: int
    steps: int
    preview_png_b64: str


class GenerateSpec(Answer):
    """The request of a `generate` job with every value as used."""

    init_image: SourceImageRead | None
    mask: SourceImageRead | None
    strength: float | None
    mask_blur: float
    mask_invert: bool
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
    speed: Speed
    timestep_spacing: TimestepSpacing | None
    timesteps: list[int] | None
    guidance_interval: list[float] | None
    prompt_syntax: PromptSyntax
    clip_skip: int | None
    best_of: int | None
    grid: bool
    loras: list[LoraUseRead]
    embeddings: list[str]
    model: str | None
    preview: int | None


class GenerateJob(Answer):
    """A job that makes the images of one request, with that request."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["generate"]
    result: GenerateResult | None
    preview: JobPreview | None
    position: int | None
    spec: GenerateSpec


class GenerationPage(Answer):
    """A page of generations, newest first."""

    items: list[GenerationRead]
    next_cursor: str | None
    total: int | None


Split = Literal["train", "validation", "test"]


ImageSource = Literal["synthetic", "real"]


Decision = Literal["kept", "rejected"]


Review = Literal["accepted", "rejected"]


class ImageRead(Answer):
    """A stored image, of a generation or of a dataset."""

    id: str
    created_at: datetime
    url: str
    width: int
    height: int
    format: ImageFormat
    num_bytes: int
    sha256: str
    seed: int | None
    flagged: bool | None
    generation_id: str | None
    dataset_id: str | None
    class_name: str | None
    split: Split | None
    source: ImageSource
    decision: Decision
    review: Review | None
    clip_score: float | None


class ImagePage(Answer):
    """A page of stored images, newest first."""

    items: list[ImageRead]
    next_cursor: str | None
    total: int | None


class LoraRecord(Answer):
    """A LoRA and the weight that it had."""

    name: str
    weight: float


class RedrawnFor(Answer):
    """The image that a repair could not restore byte by byte, and that this one replaces."""

    id: str
    sha256: str


class ImageLineage(Answer):
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
    speed: Speed | None = None
    forecast: str | None = None
    few_step_sha256: str | None = None
    timestep_spacing: TimestepSpacing | None = None
    timesteps: list[int] | None = None
    guidance_interval: list[float] | None = None
    init_image: SourceImageRead | None = None
    mask: SourceImageRead | None = None
    strength: float | None = None
    mask_blur: float | None = None
    mask_invert: bool | None = None
    prompt_syntax: PromptSyntax | None = None
    clip_skip: int | None = None
    best_of: int | None = None
    loras: list[LoraRecord] | None = None
    embeddings: list[str] | None = None
    adapter_files: dict[str, str] | None = None
    model: str | None = None
    model_files: dict[str, str] | None = None
    pack: str | None = None
    pack_revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    num_threads: int | None = None
    deterministic: bool | None = None
    compiled: bool | None = None
    versions: dict[str, str] | None = None
    template: str | None = None
    variables: dict[str, str] | None = None
    attempt: int | None = None
    redrawn_for: RedrawnFor | None = None
    uploaded_sha256: str | None = None
    uploaded_bytes: int | None = None


class ImageMetadata(Answer):
    """A stored image with its lineage: how it came to be."""

    id: str
    created_at: datetime
    url: str
    width: int
    height: int
    format: ImageFormat
    num_bytes: int
    sha256: str
    seed: int | None
    flagged: bool | None
    generation_id: str | None
    dataset_id: str | None
    class_name: str | None
    split: Split | None
    source: ImageSource
    decision: Decision
    review: Review | None
    clip_score: float | None
    label_probabilities: list[LabelProbability] | None
    reason: str | None
    lineage: ImageLineage


class LabelScore(Answer):
    """The scores of one label for an image."""

    label: str
    probability: float
    logit: float
    cosine: float


class ClipScoreRead(Answer):
    """The scores of one image."""

    kind: Literal["single"]
    model: ModelRef
    scores: list[LabelScore]
    warnings: list[WarningRead]


class ClipScoreResult(Answer):
    """One image's scores, in the order of the labels."""

    image_id: str | None
    scores: list[LabelScore]


class ClipScoresRead(Answer):
    """The scores of several images, in their order."""

    kind: Literal["batch"]
    model: ModelRef
    results: list[ClipScoreResult]
    warnings: list[WarningRead]


ClipScoreAnswer = Annotated[ClipScoreRead | ClipScoresRead, Field(discriminator="kind")]


class Prediction(Answer):
    """One class with its probability."""

    label: str
    index: int
    probability: float


class NearestImage(Answer):
    """A training image, and how near it is."""

    image_id: str
    url: str
    label: str
    similarity: float
    distance: float


class NearestRead(Answer):
    """The training images that are most similar to an image, the most similar first."""

    images: list[NearestImage]
    num_compared: int
    num_training: int


class ClassificationRead(Answer):
    """The predictions for one image."""

    kind: Literal["single"]
    model: ModelRef
    predictions: list[Prediction]
    explanation_png_b64: str | None
    nearest: NearestRead | None


class ClassifyResult(Answer):
    """One image's predictions, most probable first."""

    image_id: str | None
    predictions: list[Prediction]
    nearest: NearestRead | None


class ClassificationsRead(Answer):
    """The predictions for several images, in their order."""

    kind: Literal["batch"]
    model: ModelRef
    results: list[ClassifyResult]


ClassificationAnswer = Annotated[ClassificationRead | ClassificationsRead, Field(discriminator="kind")]


class GuidanceRange(Answer):
    """A random guidance scale for each image, drawn from min, min + 0.1, ..., max."""

    min: float
    max: float


GuidanceChoice = float | GuidanceRange


class StepsRange(Answer):
    """A random number of steps for each image, drawn from min, min + 1, ..., max."""

    min: int
    max: int


StepsChoice = int | StepsRange


class StrengthRange(Answer):
    """A random strength for each image, drawn from min, min + 0.05, ..., max."""

    min: float
    max: float


StrengthChoice = float | StrengthRange


class RecipeSettingsRead(Answer):
    """Settings of a dataset's images."""

    width: int | None
    height: int | None
    scheduler: NoiseScheduler | None
    output_format: ImageFormat
    guidance_scale: GuidanceChoice
    num_inference_steps: StepsChoice
    strength: StrengthChoice | None
    speed: Speed
    timestep_spacing: TimestepSpacing | None
    guidance_interval: list[float] | None
    loras: list[LoraUseRead]
    embeddings: list[str]
    model: str | None


Combine = Literal["cartesian", "sampled"]


class ClipFilterRead(Answer):
    """The filter of a dataset's images: at least which probability CLIP must give an image's own class."""

    threshold: float | None


PresetName = Literal["diverse", "from_prompts"]


class PlannedClass(Answer):
    """A class of a recipe with all defaults filled in, and its folder."""

    name: str
    prompts: list[str]
    negative_prompt: str
    label: str
    from_images: list[str]
    folder: str


class PlannedImage(Answer):
    """The prompt and settings of the first attempt at one slot."""

    class_name: str
    split: Split
    position: int
    prompt: str
    variables: dict[str, str]
    negative_prompt: str
    guidance_scale: float
    num_inference_steps: int
    seed: int
    from_image: str | None
    strength: float | None


EstimateBasis = Literal["measured", "scaled", "calibrated", "unknown"]


class DatasetPlan(Answer):
    """The result of a dry run: what a request would generate or add."""

    seed: int
    train_per_class: int
    validation_per_class: int
    test_per_class: int
    generation: RecipeSettingsRead
    combine: Combine
    filter: ClipFilterRead | None
    max_attempts: int
    kind: Literal["plan"]
    preset: PresetName | None
    variables: dict[str, list[str]]
    name: str
    classes: list[PlannedClass]
    num_images: int
    samples: list[PlannedImage]
    row_steps: int
    estimated_seconds: float | None
    estimate_basis: EstimateBasis
    estimate: str
    assumptions: list[str]


DatasetStatus = Literal["empty", "queued", "generating", "ready", "incomplete", "failed", "cancelled"]


class DatasetClassRead(Answer):
    """A class of a dataset, its folder and its number of images."""

    name: str
    folder: str
    label: str
    num_prompts: int
    num_shots: int
    num_train: int
    num_validation: int
    num_test: int


class ReviewCounts(Answer):
    """The images of a dataset that a person has decided about."""

    accepted: int
    rejected: int


class MissingPlace(Answer):
    """A slot of a dataset that stayed empty, and the outcome of the attempts at it."""

    class_name: str
    split: Split
    position: int
    num_rejected: int
    num_flagged: int
    num_failed: int


class DatasetRead(Answer):
    """A dataset and its progress; its prompts and variables are in its recipe."""

    seed: int
    train_per_class: int
    validation_per_class: int
    test_per_class: int
    generation: RecipeSettingsRead
    combine: Combine
    filter: ClipFilterRead | None
    max_attempts: int
    kind: Literal["dataset"]
    preset: PresetName | None
    id: str
    name: str
    created_at: datetime
    status: DatasetStatus
    classes: list[DatasetClassRead]
    model: ModelRef | None
    num_images: int
    num_rejected: int
    reviews: ReviewCounts
    missing: list[MissingPlace]
    progress: Progress
    job_id: str | None


class DatasetPage(Answer):
    """A page of datasets, newest first."""

    items: list[DatasetRead]
    next_cursor: str | None
    total: int | None


class RedrawnImage(Answer):
    """A lost image that was replaced by a new one."""

    image_id: str
    path: str
    code: str
    new_image_id: str


class UnrestoredImage(Answer):
    """An image whose file a repair could not restore byte by byte."""

    image_id: str
    path: str
    code: str


class RepairResult(Answer):
    """The result of a `repair` job."""

    dataset_id: str
    num_checked: int
    num_restored: int
    num_redrawn: int
    num_unrestored: int
    redrawn: list[RedrawnImage]
    unrestored: list[UnrestoredImage]


class RepairSpec(Answer):
    """The request of a `repair` job."""

    dataset_id: str


class RepairJob(Answer):
    """A job that checks the files of a dataset, with its request."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["repair"]
    result: RepairResult | None
    spec: RepairSpec


class RecipeClassRead(Answer):
    """A class of a recipe with all defaults filled in."""

    name: str
    prompts: list[str]
    negative_prompt: str
    label: str
    from_images: list[str]


class DatasetRecipeRead(Answer):
    """The recipe of a dataset as a body of `POST /datasets`; it includes the values that a preset set."""

    seed: int
    train_per_class: int
    validation_per_class: int
    test_per_class: int
    generation: RecipeSettingsRead
    combine: Combine
    filter: ClipFilterRead | None
    max_attempts: int
    name: str
    classes: list[RecipeClassRead]
    variables: dict[str, list[str]]


class RefusedFile(Answer):
    """The reason why a file was refused."""

    code: str
    detail: str
    duplicate_of: str | None


class UploadedFile(Answer):
    """The result for one file: either `image_id` or `refused` is set."""

    index: int
    image_id: str | None
    refused: RefusedFile | None


class UploadRead(Answer):
    """The result for each file of a request, in the order of the request."""

    num_accepted: int
    num_refused: int
    files: list[UploadedFile]


class DatasetVersionRead(Answer):
    """The current content of a dataset as a hash and counts."""

    version: str
    num_images: int
    num_synthetic: int
    num_real: int


class CocoInfo(Answer):
    """What the annotations describe."""

    description: str
    version: str
    date_created: datetime


class CocoCategory(Answer):
    """A class; `id` is its index in the dataset, as in `class_index` and in trained models."""

    id: int
    name: str
    supercategory: Literal[""]


class CocoImage(Answer):
    """An image; `file_name` is its path in the unpacked archive."""

    id: int
    file_name: str
    width: int
    height: int


class CocoAnnotation(Answer):
    """The class of an image, as an annotation of the whole image."""

    id: int
    image_id: int
    category_id: int
    bbox: list[int]
    area: int
    iscrowd: Literal[0]
    segmentation: list[list[float]]


class CocoRead(Answer):
    """The images of a dataset, or of one split, with one annotation each: its class."""

    info: CocoInfo
    licenses: list[str]
    categories: list[CocoCategory]
    images: list[CocoImage]
    annotations: list[CocoAnnotation]


class ShardRead(Answer):
    """One WebDataset shard."""

    index: int
    name: str
    url: str
    split: Split
    num_samples: int


class ShardsRead(Answer):
    """All shards of a dataset: those of `train`, then of `validation`, then of `test`."""

    version: str
    samples_per_shard: int
    image_key: ImageFormat
    shards: list[ShardRead]


class LeftOutImage(Answer):
    """An image that could not be judged."""

    image_id: str
    url: str
    code: str


class LabelShare(Answer):
    """A label of the pretrained classifier, and for how many images it was the most probable."""

    label: str
    count: int
    share: float


class ReportImage(Answer):
    """An image listed in the report."""

    image_id: str
    url: str
    split: Split
    source: ImageSource
    predicted_class: str
    probability: float


class ClassReport(Answer):
    """One class."""

    name: str
    text: str
    num_train: int
    num_validation: int
    num_test: int
    num_synthetic: int
    num_real: int
    num_judged: int
    agreement: float | None
    mean_probability: float | None
    diversity: float | None
    top_labels: list[LabelShare]
    best: list[ReportImage]
    worst: list[ReportImage]


class ConfusionCell(Answer):
    """The number of images of one class that CLIP assigns to a class, the same or another."""

    class_name: str
    predicted_class: str
    count: int


ThresholdSource = Literal["request", "pack"]


class ReportPair(Answer):
    """Two nearly equal images."""

    image_ids: list[str]
    class_names: list[str]
    splits: list[Split]
    cosine: float


class ReportPairs(Answer):
    """Pairs of judged images whose cosine reaches `near_duplicate_cosine`."""

    num_pairs: int
    num_images: int
    pairs: list[ReportPair]


class DatasetReportRead(Answer):
    """Counts of a dataset, and figures from CLIP and the pretrained classifier."""

    dataset_id: str
    version: str
    model: ModelRef
    num_images: int
    num_synthetic: int
    num_real: int
    num_judged: int
    num_left_out: int
    left_out: list[LeftOutImage]
    is_sample: bool
    agreement: float
    diversity: float | None
    classes: list[ClassReport]
    confusion: list[ConfusionCell]
    num_confusion_cells: int
    near_duplicate_cosine: float
    near_duplicate_cosine_from: ThresholdSource
    near_duplicates: ReportPairs
    leakage: ReportPairs


class EpochRead(Answer):
    """The metrics of one epoch."""

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    elapsed_ms: float
    validation_loss: float | None
    validation_accuracy: float | None


class OptimizerRead(Answer):
    """Settings of the SGD optimizer."""

    name: Literal["sgd"] | None = None
    lr: float | None = None
    momentum: float | None = None


class DatasetRequestRead(Answer):
    """A dataset's request without its texts, which `/datasets/{dataset_id}/recipe` has."""

    name: str | None = None
    seed: int | None = None
    train_per_class: int | None = None
    validation_per_class: int | None = None
    test_per_class: int | None = None
    preset: PresetName | None = None
    generation: RecipeSettingsRead | None = None
    combine: Combine | None = None
    filter: ClipFilterRead | None = None
    max_attempts: int | None = None


Solver = Literal["sgd", "adamw", "lbfgs", "ridge", "prototypes", "sweep"]


Schedule = Literal["constant", "cosine", "step"]


SweepSolver = Literal["sgd", "adamw", "lbfgs"]


class HeadRead(Answer):
    """How a head is trained, with every setting filled in; settings of other solvers than `solver` have no effect."""

    solver: Solver | None = None
    epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    c: float | None = None
    alpha: float | None = None
    schedule: Schedule | None = None
    warmup_epochs: int | None = None
    class_weights: Literal["balanced"] | None = None
    label_smoothing: float | None = None
    soft_share: float | None = None
    patience: int | None = None
    scaling: str | None = None
    normalise: bool | None = None
    sweep_solver: SweepSolver | None = None


class ValidationRead(Answer):
    """The part of each class's training images that settings are chosen by."""

    fraction: float | None = None


class EarlyStoppingRead(Answer):
    """How many epochs without a lower validation loss end the training."""

    patience: int | None = None


class ViewsRead(Answer):
    """Further views of each training image, as additional training rows."""

    flip: bool | None = None
    crops: int | None = None


FineTuneMode = Literal["head", "last_block", "all"]


GradientSolver = Literal["sgd", "adamw"]


class FineTuneAugment(Answer):
    """Random changes of each training picture of a fine-tuning."""

    area: list[float] | None = None
    ratio: list[float] | None = None
    flip: bool | None = None
    colour: float | None = None


class FineTuningRead(Answer):
    """The settings of a fine-tuning, with every default filled in."""

    mode: FineTuneMode | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: GradientSolver | None = None
    lr: float | None = None
    backbone_lr_factor: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    warmup_epochs: int | None = None
    schedule: Schedule | None = None
    label_smoothing: float | None = None
    ema_decay: float | None = None
    augment: FineTuneAugment | None = None
    mixed_precision: str | None = None
    patience: int | None = None
    seed: int | None = None


class FilledSlots(Answer):
    """The slots that a job leaves as they are: those below these positions, in each class."""

    train: int | None = None
    validation: int | None = None
    test: int | None = None


class TriedSlots(Answer):
    """The slots that earlier jobs attempted, below these positions, and how often."""

    train: int | None = None
    validation: int | None = None
    test: int | None = None
    attempts: int | None = None


class TrainSpec(Answer):
    """The request of a `train` job with every value resolved."""

    dataset_id: str
    name: str | None = None
    backbone: str | None = None
    method: Literal["linear_probe"] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: OptimizerRead | None = None
    seed: int | None = None
    allow_incomplete: bool | None = None
    dataset: DatasetRequestRead | None = None
    backbone_sha256: str | None = None
    head: HeadRead | None = None
    validation: ValidationRead | None = None
    early_stopping: EarlyStoppingRead | None = None
    augment: ViewsRead | None = None
    preset: Literal["from_prompts"] | None = None
    fine_tune: FineTuneMode | None = None
    fine_tuning: FineTuningRead | None = None
    made: FilledSlots | None = None
    tried: TriedSlots | None = None


class TrainJobRead(Answer):
    """A train job with its request and its epochs so far."""

    id: str
    name: str
    status: JobStatus
    progress: Progress
    dataset_id: str
    last_epoch: EpochRead | None
    model_id: str | None
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    spec: TrainSpec
    warnings: list[WarningRead]
    epochs: list[EpochRead]


class TrainJobSummary(Answer):
    """A train job as lists return it."""

    id: str
    name: str
    status: JobStatus
    progress: Progress
    dataset_id: str
    last_epoch: EpochRead | None
    model_id: str | None
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class TrainJobPage(Answer):
    """A page of train jobs, newest first."""

    items: list[TrainJobSummary]
    next_cursor: str | None
    total: int | None


class SettingRead(Answer):
    """One setting of the training as text."""

    name: str
    value: str


class EpochPoint(Answer):
    """The curves at the end of one epoch."""

    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    held_out_loss: float | None
    held_out_accuracy: float | None


class Interval(Answer):
    """A share with its 95 % Wilson interval, which assumes independent images."""

    value: float
    low: float
    high: float
    n: int


class ClassMetricsRead(Answer):
    """One class against the rest."""

    name: str
    precision: float | None
    recall: Interval | None
    f1: float | None
    support: int
    is_small: bool


class CalibrationBinRead(Answer):
    """The images whose confidence is above `low` and at most `high`."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None


class CalibrationRead(Answer):
    """Whether confidence means accuracy."""

    ece: float
    n: int
    bins: list[CalibrationBinRead]


class ConfusedPair(Answer):
    """The number of images of one class that were predicted as another."""

    class_name: str
    predicted_class: str
    count: int


class SplitMetricsRead(Answer):
    """The metrics of a classifier on one set of images."""

    n: int
    accuracy: Interval
    top_5: Interval | None
    macro_f1: float | None
    balanced_accuracy: float | None
    brier: float | None
    nll: float | None
    ece: float | None
    num_small_classes: int
    num_absent_classes: int
    per_class: list[ClassMetricsRead]
    calibration: CalibrationRead | None
    confusion_classes: list[str]
    num_merged_classes: int
    confusion_matrix: list[list[int]]
    confused: list[ConfusedPair]


class HeadlineRead(Answer):
    """The one figure to quote."""

    source: ImageSource | None
    accuracy: Interval | None
    sentence: str


class DifferenceInterval(Answer):
    """A difference of two shares with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int


Verdict = Literal["better", "worse", "not_distinguishable"]


class PairedDifferenceRead(Answer):
    """The accuracy of a first classifier minus that of a second one on the same images."""

    difference: DifferenceInterval
    num_only_first: int
    num_only_second: int
    num_groups: int
    mcnemar_p: float
    detectable: float | None
    verdict: Verdict


class BaselineRead(Answer):
    """A classifier that needs no training, on the same images as the headline."""

    source: ImageSource
    accuracy: Interval
    model_minus_baseline: PairedDifferenceRead


class BaselinesRead(Answer):
    """What the model has to beat; null where a baseline was not computed."""

    majority: BaselineRead | None
    nearest_centroid: BaselineRead | None
    clip_zero_shot: BaselineRead | None


class SourcedMetricsRead(Answer):
    """The metrics on the images of one split, real and generated ones apart."""

    real: SplitMetricsRead | None
    synthetic: SplitMetricsRead | None
    unseparated: SplitMetricsRead | None
    headline: HeadlineRead
    baselines: BaselinesRead


class MetricsRead(Answer):
    """The metrics of a model."""

    train: SourcedMetricsRead
    validation: SourcedMetricsRead
    test: SourcedMetricsRead


class ReportMistake(Answer):
    """An image that the model has wrong, with a small copy."""

    image_id: str
    url: str
    source: ImageSource
    true_class: str
    predicted_class: str
    probability: float
    true_probability: float
    thumbnail_b64: str | None


class LabelErrorRead(Answer):
    """An image whose label is probably wrong."""

    image_id: str
    url: str
    given_class: str
    suggested_class: str
    score: float
    suggested_probability: float


class LabelErrorsRead(Answer):
    """Images whose label is probably wrong, by confident learning on out-of-sample probabilities (five folds)."""

    num_suspected: int
    n: int
    listed: list[LabelErrorRead]


class AblationRow(Answer):
    """What one part of a recipe gave."""

    part: str
    with_part: Interval
    without_part: Interval
    difference: DifferenceInterval | None


class ClassImages(Answer):
    """How many images of a class the dataset has."""

    class_name: str
    num_train: int
    num_validation: int
    num_test: int
    num_real: int


class PromptLineage(Answer):
    """A prompt, and the images that were generated from it."""

    class_name: str
    prompt: str
    num_images: int
    seeds: list[int]


class ReportLineage(Answer):
    """What the model was made from."""

    dataset_id: str
    dataset_name: str
    dataset_version: str | None
    backbone: str
    backbone_sha256: str
    preprocessing: str
    model_sha256: str
    generator: str | None
    classes: list[ClassImages]
    prompts: list[PromptLineage]
    num_prompts: int


class TrainReportRead(Answer):
    """The report of a train job."""

    name: str
    job_id: str
    model_id: str
    created_at: datetime
    settings: list[SettingRead]
    epochs: list[EpochPoint]
    held_out_split: Split
    metrics: MetricsRead
    mistakes: list[ReportMistake]
    label_errors: LabelErrorsRead | None
    ablation: list[AblationRow]
    lineage: ReportLineage
    warnings: list[WarningRead]


class SplitMetricsSummary(Answer):
    """The metrics of a classifier on one set of images, without tables."""

    n: int
    accuracy: Interval
    top_5: Interval | None
    macro_f1: float | None
    balanced_accuracy: float | None
    brier: float | None
    nll: float | None
    ece: float | None
    num_small_classes: int
    num_absent_classes: int


class SourcedMetricsSummary(Answer):
    """The metrics on the images of one split, real and generated ones apart, without tables."""

    real: SplitMetricsSummary | None
    synthetic: SplitMetricsSummary | None
    unseparated: SplitMetricsSummary | None
    headline: HeadlineRead
    baselines: BaselinesRead


class MetricsSummary(Answer):
    """The metrics of a model as lists return them."""

    train: SourcedMetricsSummary
    validation: SourcedMetricsSummary
    test: SourcedMetricsSummary


class ModelSummary(Answer):
    """A trained model as lists return it: classes, and metrics without tables."""

    id: str
    name: str
    created_at: datetime
    job_id: str
    dataset_id: str
    backbone: str
    backbone_sha256: str
    classes: list[str]
    metrics: MetricsSummary
    sha256: str
    num_bytes: int


class ModelPage(Answer):
    """A page of trained models, newest first."""

    items: list[ModelSummary]
    next_cursor: str | None
    total: int | None


class ComparedModel(Answer):
    """One model of a comparison."""

    id: str
    name: str
    accuracy: Interval


class ComparedPair(Answer):
    """Two models of a comparison."""

    difference: DifferenceInterval
    num_only_first: int
    num_only_second: int
    num_groups: int
    mcnemar_p: float
    detectable: float | None
    verdict: Verdict
    first_id: str
    second_id: str


class ComparisonOnSource(Answer):
    """Models compared on the images of one source that all of them were evaluated on."""

    num_images: int
    models: list[ComparedModel]
    pairs: list[ComparedPair]


class ModelComparisonRead(Answer):
    """Models compared on the same images, real and generated ones apart."""

    real: ComparisonOnSource | None
    synthetic: ComparisonOnSource | None
    num_left_out: int
    warnings: list[WarningRead]


class DatasetLineage(Answer):
    """The dataset that a model was trained on, as it was then."""

    id: str | None
    name: str | None
    num_images: int | None
    num_real: int | None
    version: str | None


class PreprocessingPart(Answer):
    """How a picture became a backbone's input, as in `GET /backbones`."""

    library: str | None = None
    resize: int | None = None
    crop: int | None = None
    crop_mode: str | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None


class BackbonePart(Answer):
    """One of several backbones whose features are combined."""

    name: str | None = None
    architecture: str | None = None
    weights_sha256: str | None = None
    preprocessing: PreprocessingPart | None = None
    device: str | None = None
    dtype: str | None = None
    torch: str | None = None


class PreprocessingLineage(Answer):
    """How a picture became a backbone's input: the settings, or `parts` with those of a combined backbone."""

    library: str | None = None
    resize: int | None = None
    crop: int | None = None
    crop_mode: str | None = None
    crop_pct: float | None = None
    interpolation: str | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    parts: list[BackbonePart] | None = None


class BackboneOrigin(Answer):
    """The backbone that a fine-tuned one started from."""

    name: str
    weights_sha256: str


class BackboneLineage(Answer):
    """The network whose features a model classifies."""

    name: str | None
    architecture: str | None
    weights_sha256: str | None
    preprocessing: PreprocessingLineage | None
    preprocessing_text: str | None
    device: str | None
    dtype: str | None
    torch: str | None
    fine_tuned_from: BackboneOrigin | None


class HeadWorth(Answer):
    """What the head was worth that a fine-tuning started from."""

    solver: str | None = None
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    num_test: int | None = None


class TrainingLineage(Answer):
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
    chosen: HeadRead | None = None
    probe: HeadWorth | None = None


class ModelLineage(Answer):
    """What a model was made from; null where the release that trained it did not record it."""

    dataset: DatasetLineage | None
    backbone: BackboneLineage | None
    training: TrainingLineage | None


class ModelRead(Answer):
    """A trained model with all its metrics and its lineage."""

    id: str
    name: str
    created_at: datetime
    job_id: str
    dataset_id: str
    backbone: str
    backbone_sha256: str
    classes: list[str]
    metrics: MetricsRead
    sha256: str
    num_bytes: int
    lineage: ModelLineage


class EvaluateResult(Answer):
    """The result of an `evaluate` job."""

    evaluation_id: str


class EvaluateSpec(Answer):
    """The request of an `evaluate` job."""

    model_id: str
    dataset_id: str
    split: Split


class EvaluateJob(Answer):
    """A job that evaluates a model, with its request."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["evaluate"]
    result: EvaluateResult | None
    spec: EvaluateSpec


class EvaluationSummary(Answer):
    """An evaluation of a model on a dataset as lists return it."""

    id: str
    model_id: str
    job_id: str
    dataset_id: str
    dataset_name: str
    dataset_version: str
    split: Split
    created_at: datetime
    metrics: SourcedMetricsSummary
    warnings: list[WarningRead]


class EvaluationPage(Answer):
    """A page of evaluations, newest first."""

    items: list[EvaluationSummary]
    next_cursor: str | None
    total: int | None


class MistakeRead(Answer):
    """An image that the model has wrong."""

    image_id: str
    url: str
    source: ImageSource
    true_class: str
    predicted_class: str
    probability: float
    true_probability: float


class EvaluationRead(Answer):
    """An evaluation of a model on a dataset."""

    id: str
    model_id: str
    job_id: str
    dataset_id: str
    dataset_name: str
    dataset_version: str
    split: Split
    created_at: datetime
    metrics: SourcedMetricsRead
    warnings: list[WarningRead]
    mistakes: list[MistakeRead]


BackboneState = Literal["ready", "loading", "loadable", "failed"]


TrainedOn = Literal["drawings", "photographs"]


class PreprocessingRead(Answer):
    """How a picture becomes a backbone's input."""

    library: str
    resize: int
    crop: int
    crop_mode: str
    crop_pct: float | None
    interpolation: str
    mean: list[float]
    std: list[float]


class BackboneRead(Answer):
    """One backbone: a network whose features classifiers are trained on."""

    name: str
    state: BackboneState
    detail: str | None
    architecture: str | None
    trained_on: TrainedOn | None
    input_size: int | None
    num_features: int | None
    num_parameters: int | None
    num_bytes: int | None
    weights_sha256: str | None
    num_classes: int | None
    images_per_s: float | None
    preprocessing: PreprocessingRead | None


class BackbonesRead(Answer):
    """The backbones of this node."""

    items: list[BackboneRead]


class GenerateJobSummary(Answer):
    """A job that makes the images of one request."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["generate"]
    result: GenerateResult | None
    preview: JobPreview | None
    position: int | None


class DatasetResult(Answer):
    """The result of a `dataset` job."""

    dataset_id: str
    num_images: int
    num_missing: int


class DatasetJobSummary(Answer):
    """A job that makes the images of a dataset."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["dataset"]
    result: DatasetResult | None


class RepairJobSummary(Answer):
    """A job that checks the files of a dataset and restores lost ones."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["repair"]
    result: RepairResult | None


class TrainResult(Answer):
    """The result of a `train` job."""

    model_id: str


class TrainJobState(Answer):
    """A job that trains a classifier; `/train-jobs/{job_id}` has its epochs too."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["train"]
    result: TrainResult | None


class EvaluateJobSummary(Answer):
    """A job that evaluates a model."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["evaluate"]
    result: EvaluateResult | None


JobSummary = Annotated[GenerateJobSummary | DatasetJobSummary | RepairJobSummary | TrainJobState | EvaluateJobSummary, Field(discriminator="kind")]


class JobPage(Answer):
    """A page of jobs, newest first."""

    items: list[JobSummary]
    next_cursor: str | None
    total: int | None


class DatasetSpecExtension(Answer):
    """How many images a job adds to each class."""

    train_per_class: int
    validation_per_class: int
    test_per_class: int


class DatasetSpec(Answer):
    """The request of a `dataset` job."""

    name: str | None = None
    seed: int | None = None
    train_per_class: int | None = None
    validation_per_class: int | None = None
    test_per_class: int | None = None
    preset: PresetName | None = None
    generation: RecipeSettingsRead | None = None
    combine: Combine | None = None
    filter: ClipFilterRead | None = None
    max_attempts: int | None = None
    dataset_id: str
    extend: DatasetSpecExtension | None = None
    made: FilledSlots | None = None
    tried: TriedSlots | None = None


class DatasetJob(Answer):
    """A job that makes the images of a dataset, with its request."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["dataset"]
    result: DatasetResult | None
    spec: DatasetSpec


class TrainJobSpec(Answer):
    """The request of a `train` job as its job has it."""

    dataset_id: str
    name: str | None = None
    backbone: str | None = None
    method: Literal["linear_probe"] | None = None
    epochs: int | None = None
    batch_size: int | None = None
    optimizer: OptimizerRead | None = None
    seed: int | None = None
    allow_incomplete: bool | None = None
    dataset: DatasetRequestRead | None = None
    backbone_sha256: str | None = None
    head: HeadRead | None = None
    validation: ValidationRead | None = None
    early_stopping: EarlyStoppingRead | None = None
    augment: ViewsRead | None = None
    preset: Literal["from_prompts"] | None = None
    fine_tune: FineTuneMode | None = None
    fine_tuning: FineTuningRead | None = None
    made: FilledSlots | None = None
    tried: TriedSlots | None = None
    warnings: list[WarningRead] | None = None


class TrainJob(Answer):
    """A job that trains a classifier, with its request."""

    id: str
    status: JobStatus
    version: int
    priority: int
    retry_of: str | None
    request_id: str | None
    progress: Progress
    error: JobError | None
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    kind: Literal["train"]
    result: TrainResult | None
    spec: TrainJobSpec


JobRead = Annotated[GenerateJob | DatasetJob | RepairJob | TrainJob | EvaluateJob, Field(discriminator="kind")]


KeyState = Literal["active", "expired", "revoked"]


class KeyLimitsRead(Answer):
    """The bounds of a key."""

    requests_per_minute: int | None
    concurrent_requests: int | None
    concurrent_images: int | None
    pixel_steps_per_day: int | None
    stored_mb: int | None


class KeyRead(Answer):
    """A key, without the key itself, which the node does not have."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_on: str | None
    limits: KeyLimitsRead


class KeyPage(Answer):
    """A page of keys, newest first."""

    items: list[KeyRead]
    next_cursor: str | None
    total: int | None


class KeyCreatedRead(Answer):
    """A key that was just created."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_on: str | None
    limits: KeyLimitsRead
    key: str


class KeyUse(Answer):
    """What a key uses of its quotas."""

    pixel_steps_today: int
    stored_bytes: int


class KeyDetail(Answer):
    """A key with its use."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    state: KeyState
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_on: str | None
    limits: KeyLimitsRead
    applied_limits: KeyLimitsRead
    use: KeyUse


class Liveness(Answer):
    """The process is alive."""

    status: Literal["ok"]


LoadingState = Literal["loading", "ready", "failed"]


class ModelState(Answer):
    """The loading state of one model, with notes on its operation."""

    state: LoadingState
    detail: str | None
    note: str | None
    expected_wait_s: float | None


class Readiness(Answer):
    """All models are loaded and the database answers."""

    status: Literal["ready"]
    models: dict[str, ModelState]


class PackSpeed(Answer):
    """How fast a pack is on the machine that measured it."""

    seconds_per_image_50_steps: float | None = None
    load_seconds: float | None = None


class ClassAccuracy(Answer):
    """How many generated images of a class the pack's own judges recognise, as shares."""

    clip_class: float | None = None
    clip_colour: float | None = None
    classifier_top1: float | None = None
    classifier_top5: float | None = None


class GeneratedQuality(Answer):
    """What the pack's own judges make of its generated images."""

    images: int | None = None
    clip_class_accuracy: float | None = None
    clip_colour_accuracy: float | None = None
    classifier_top1: float | None = None
    classifier_top5: float | None = None
    per_class: dict[str, ClassAccuracy] | None = None


class HeldOutQuality(Answer):
    """What the pack's models make of held-out pictures."""

    drawings: int | None = None
    caption_recall_at_1_of_100: dict[str, float] | None = None
    clip_class_accuracy: float | None = None
    clip_colour_accuracy: float | None = None
    classifier_top1: float | None = None
    vae_psnr_db: dict[str, float] | None = None


class JudgeQuality(Answer):
    """How many generated images an independent classifier recognises, as shares."""

    architecture: str | None = None
    held_out_drawings: float | None = None
    generated: float | None = None
    per_class: dict[str, float] | None = None


class ProbeQuality(Answer):
    """The accuracy of a classifier that was trained on generated images of some classes."""

    fresh_pictures: float | None = None
    drawings: float | None = None
    trained_on_a_class: int | None = None


class SettingQuality(Answer):
    """CLIP's accuracy on generated images, by setting."""

    clip_class_accuracy: dict[str, float] | None = None


class NegativePromptEffect(Answer):
    """What a negative prompt changes: CLIP's probability of what it names."""

    prompt: str | None = None
    negative_prompt: str | None = None
    without: float | None = None
    with_: float | None = Field(default=None, alias="with")
    change: float | None = None


class PackQuality(Answer):
    """Measurements of a pack's weights; without those that its manifest does not have."""

    speed: PackSpeed | None = None
    generated: GeneratedQuality | None = None
    held_out_drawings: HeldOutQuality | None = None
    judge: JudgeQuality | None = None
    probes: dict[str, ProbeQuality] | None = None
    noise_schedulers: SettingQuality | None = None
    negative_prompts: dict[str, NegativePromptEffect] | None = None
    sizes: SettingQuality | None = None


class BuildStage(Answer):
    """The training of one part of a pack."""

    steps: int | None = None
    minutes: float | None = None


class PackOrigin(Answer):
    """How a pack's weights were made; without what its manifest does not say."""

    how: str | None = None
    command: str | None = None
    seeds: dict[str, int] | None = None
    stages: dict[str, BuildStage] | None = None


class PackRead(Answer):
    """The served model pack."""

    name: str
    revision: str
    licence: str
    native_size: int
    classifier_classes: list[str]
    total_bytes: int
    files: int
    quality: PackQuality
    made: PackOrigin


DrawingMode = Literal["text_to_image", "image_to_image", "inpainting"]


class DrawingModel(Answer):
    """A diffusion model of the node."""

    name: str
    is_default: bool
    fits: bool
    is_loaded: bool
    native_size: int | None
    min_side: int | None
    max_side: int | None
    modes: list[DrawingMode]
    noise_schedulers: list[NoiseScheduler]
    default_noise_scheduler: NoiseScheduler | None
    prediction_type: str | None
    speeds: list[Speed]
    loras: list[str]
    embeddings: list[str]
    num_bytes: int | None
    step_ms: float | None


class NodeModel(Answer):
    """One model of the node."""

    state: LoadingState
    detail: str | None
    note: str | None
    expected_wait_s: float | None
    drawing: DrawingModel | None


class SpeedDefaults(Answer):
    """What images of a speed are made with where a request does not give it."""

    num_inference_steps: int
    max_num_inference_steps: int
    guidance_scale: float
    scheduler: NoiseScheduler
    timestep_spacing: TimestepSpacing


class SpeedMeasurement(Answer):
    """What a speed was measured to do to a pack's images, with a noise scheduler; by `python -m bench.speed`."""

    scheduler: NoiseScheduler | None = None
    num_inference_steps: int | None = None
    prompts: int | None = None
    rows: int | None = None
    rows_exact: int | None = None
    psnr_db: float | None = None
    clip_score: float | None = None
    clip_score_exact: float | None = None
    clip_class_accuracy: float | None = None
    clip_class_accuracy_exact: float | None = None
    clip_colour_accuracy: float | None = None
    clip_colour_accuracy_exact: float | None = None
    judge_accuracy: float | None = None
    judge_accuracy_exact: float | None = None
    seconds_per_image: float | None = None


class SpeedRead(Answer):
    """A speed that this node offers."""

    name: Speed
    defaults: SpeedDefaults | None
    measured: list[SpeedMeasurement]


class LoraRead(Answer):
    """A LoRA file of the node."""

    name: str
    num_bytes: int
    fits: bool
    detail: str | None
    rank: int | None


class EmbeddingRead(Answer):
    """A textual-inversion embedding of the node."""

    name: str
    num_bytes: int
    fits: bool
    detail: str | None
    token: str | None
    num_vectors: int | None


class Limits(Answer):
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


class Capabilities(Answer):
    """The models, formats and limits of this node."""

    version: str
    pack: PackRead
    models: dict[str, NodeModel]
    device: str
    dtype: str
    modes: list[DrawingMode]
    noise_schedulers: list[NoiseScheduler]
    default_noise_scheduler: str
    speeds: list[SpeedRead]
    timestep_spacings: list[TimestepSpacing]
    loras: list[LoraRead]
    embeddings: list[EmbeddingRead]
    limits: Limits
    versions: dict[str, str]


class ServiceLinks(Answer):
    """Paths of this node."""

    documentation: str
    openapi: str
    errors: str
    capabilities: str
    ready: str


class ServiceRead(Answer):
    """What this service is."""

    name: str
    version: str
    description: str
    links: ServiceLinks


class ErrorCodeRead(Answer):
    """What an error code means."""

    code: ErrorCode
    statuses: str
    meaning: str
    url: str


class ErrorCodesRead(Answer):
    """Every error code."""

    items: list[ErrorCodeRead]
