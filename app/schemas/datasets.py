"""Request and response models of labelled datasets and their recipes. Imports no services; pure."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from app.schemas.common import (
    SPLITS,
    Label,
    Name,
    NegativePrompt,
    Page,
    Prompt,
    Request,
    ResourceId,
    Response,
    Seed,
    Split,
    UtcTime,
)
from app.schemas.generations import ModelRef
from app.schemas.progress import Progress
from app.schemas.recipes import (
    ClipFilter,
    ClipFilterRead,
    Combine,
    MaxAttempts,
    PresetName,
    RecipeSettings,
    RecipeSettingsRead,
    Variables,
)

DatasetStatus = TypeAliasType(
    "DatasetStatus",
    Annotated[
        Literal["empty", "queued", "generating", "ready", "incomplete", "failed", "cancelled"],
        Field(
            description="Training needs `ready`, or with `allow_incomplete` also `incomplete`, `failed` or `cancelled`."
        ),
    ],
)
PerClass = Annotated[int, Field(strict=True, ge=0, le=100_000)]
MAX_RECIPE_BYTES = 2_000_000
# Not allowed; told by `not`, for the reason of `exactly_one`.
_NOTHING: JsonDict = {"properties": {f"{split}_per_class": {"maximum": 0} for split in SPLITS}}
MAX_MISSING_TOLD = 200
MAX_SHOTS_PER_CLASS = 100
MAX_SHOTS = 500


class DatasetClass(Request):
    """A class and its prompts, which are used in turn."""

    name: Annotated[Label, Field(description="Any text; the folder's name is derived from it.")]
    prompts: Annotated[list[Prompt], Field(max_length=100)] = Field(
        default_factory=list,
        description="At least one, each with any `{variables}`; the preset `from_prompts` writes them where there are "
        "none.",
    )
    negative_prompt: NegativePrompt = ""
    label: Label | None = Field(
        None, description="The text for CLIP, used in `a photo of a {label}`; default: the name."
    )
    from_images: Annotated[list[ResourceId], Field(max_length=MAX_SHOTS_PER_CLASS)] = Field(
        default_factory=list,
        description="Ids of stored images of this class, its shots. Its training images begin with them in turn and "
        "are repainted by `generation.strength`; images of the other splits are made of the prompts alone. Images of a "
        f"split `test` or `validation` are refused. All classes may have {MAX_SHOTS} together.",
    )


class DatasetCreate(Request):
    """A dataset to generate: classes, number of images of each, and the recipe.

    `classes` and `variables`, with the additions of a preset, may have at most 2,000,000 bytes together as JSON in
    UTF-8 without white space (`recipe_too_large`).
    """

    name: Name
    seed: Seed | None = Field(None, description="Seed of all images; default: random.")
    classes: Annotated[list[DatasetClass], Field(min_length=2, max_length=1_000)]
    train_per_class: PerClass = 40
    validation_per_class: PerClass = Field(0, description="Images to choose settings by, which are not trained on.")
    test_per_class: PerClass = 10
    preset: PresetName | None = Field(
        None,
        description="`diverse` sets a low random guidance scale, styles and backgrounds around each prompt and the "
        "CLIP filter, which improves classifiers trained on the images. `from_prompts` does the same in the words "
        "that the loaded pack was trained on, and writes the prompts of classes without any. Fields given in the "
        "request take precedence.",
    )
    generation: RecipeSettings = Field(default_factory=RecipeSettings)
    variables: Variables = Field(default_factory=dict)
    combine: Combine = "cartesian"
    filter: ClipFilter | None = Field(None, description="Replace images that CLIP assigns to another class.")
    max_attempts: MaxAttempts | None = Field(None, description="Default: 10 with a filter, 3 without.")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "fox-dog",
                    "seed": 7,
                    "classes": [
                        {"name": "fox", "prompts": ["a {style} of a red fox"]},
                        {"name": "dog", "prompts": ["a {style} of a golden retriever"]},
                    ],
                    "variables": {"style": ["watercolor painting", "pencil sketch"]},
                    "train_per_class": 40,
                    "test_per_class": 10,
                }
            ]
        }
    )


class DatasetExtend(Request):
    """The number of images to add to each class of a dataset, by its own recipe."""

    train_per_class: PerClass = Field(0, description="Training images to add to each class.")
    validation_per_class: PerClass = Field(0, description="Validation images to add to each class.")
    test_per_class: PerClass = Field(0, description="Test images to add to each class.")

    model_config = ConfigDict(
        json_schema_extra={"not": _NOTHING, "examples": [{"train_per_class": 10, "test_per_class": 2}]}
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> "DatasetExtend":
        if not self.train_per_class and not self.validation_per_class and not self.test_per_class:
            raise PydanticCustomError("nothing_to_make", "One of the numbers must be above 0.")
        return self


class RecipeClassRead(Response):
    """A class of a recipe with all defaults filled in."""

    name: str
    prompts: list[str]
    negative_prompt: str
    label: str
    from_images: Annotated[list[str], Field(max_length=MAX_SHOTS_PER_CLASS)] = Field(
        default_factory=list, description="Ids of its shots, as they were given; the images may be deleted since."
    )


class PlannedClass(RecipeClassRead):
    """A class of a recipe with all defaults filled in, and its folder."""

    folder: str


class DatasetClassRead(Response):
    """A class of a dataset, its folder and its number of images."""

    name: str
    folder: str
    label: str
    num_prompts: int
    num_shots: int = Field(0, description="Images of `from_images`.")
    num_train: int
    num_validation: int
    num_test: int


class SettledSettings(Response):
    """The settings of a recipe with all defaults filled in."""

    seed: int
    train_per_class: int
    validation_per_class: int
    test_per_class: int
    generation: RecipeSettingsRead
    combine: Combine
    filter: ClipFilterRead | None
    max_attempts: int


class DatasetRecipeRead(SettledSettings):
    """The recipe of a dataset as a body of `POST /datasets`; it includes the values that a preset set."""

    name: str
    classes: list[RecipeClassRead]
    variables: dict[str, list[str]]


class MissingPlace(Response):
    """A slot of a dataset that stayed empty, and the outcome of the attempts at it."""

    class_name: str
    split: Split
    position: int
    num_rejected: int = Field(description="Attempts that the filter rejected.")
    num_flagged: int = Field(description="Attempts that the safety checker flagged.")
    num_failed: int = Field(description="Attempts at which the model failed.")


class ReviewCounts(Response):
    """The images of a dataset that a person has decided about."""

    accepted: int
    rejected: int = Field(description="They are not part of the dataset's content, nor of its numbers of images.")


class DatasetRead(SettledSettings):
    """A dataset and its progress; its prompts and variables are in its recipe."""

    kind: Literal["dataset"] = Field("dataset", description="Tells it from the plan of a dry run.")
    preset: PresetName | None
    id: str
    name: str
    created_at: UtcTime
    status: DatasetStatus
    classes: list[DatasetClassRead]
    model: ModelRef | None = Field(
        description="What generates the images: the default model's pack, or the model that `generation` names."
    )
    num_images: int
    num_rejected: int = Field(description="Images that the filter has rejected; they do not belong to the dataset.")
    reviews: ReviewCounts
    missing: list[MissingPlace] = Field(
        max_length=MAX_MISSING_TOLD, description=f"The first {MAX_MISSING_TOLD} empty slots of an `incomplete` dataset."
    )
    progress: Progress
    job_id: str | None


class DatasetPage(Page[DatasetRead]):
    """A page of datasets, newest first."""


EstimateBasis = TypeAliasType("EstimateBasis", Literal["measured", "scaled", "calibrated", "unknown"])


class PlannedImage(Response):
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
    from_image: str | None = Field(None, description="Id of the shot that it begins with; null: it begins with noise.")
    strength: float | None = Field(None, description="Null without a shot.")


class DatasetPlan(SettledSettings):
    """The result of a dry run: what a request would generate or add. Nothing is stored."""

    kind: Literal["plan"] = Field("plan", description="Tells it from a dataset.")
    preset: PresetName | None
    variables: dict[str, list[str]]
    name: str
    classes: list[PlannedClass]
    num_images: int = Field(description="Images that would be generated.")
    samples: list[PlannedImage] = Field(description="The first slots of some classes.")
    row_steps: int = Field(
        ge=0, description="Rows x steps of these images: a step of an image with guidance has two rows, else one."
    )
    estimated_seconds: float | None = Field(
        ge=0, description="Estimated seconds from the request to the job's end; null if this node cannot know."
    )
    estimate_basis: EstimateBasis = Field(
        description="What the cost of a step rests on: `measured`, the latest steps at this size; `scaled`, those at "
        "other sizes, by pixels; `calibrated`, the node's measurement at its start; `unknown`: there is no estimate."
    )
    estimate: str = Field(description="The basis of the estimate in words, or why there is none.")
    assumptions: list[str] = Field(description="What the estimate assumes besides; sentences.")
