"""Request and response models of labelled datasets and their recipes. Imports no services; pure."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from app.schemas.common import (
    GuidanceScale,
    Label,
    Name,
    NegativePrompt,
    NumInferenceSteps,
    Prompt,
    Request,
    Response,
    Seed,
    Split,
    Storable,
    UtcTime,
)
from app.schemas.generations import ImageSettings, ModelRef
from app.schemas.jobs import Progress

DatasetStatus = Literal["empty", "queued", "generating", "ready", "incomplete", "failed", "cancelled"]
PerClass = Annotated[int, Field(strict=True, ge=0, le=100_000)]
MAX_COMBINATIONS = 1_000_000
MAX_RECIPE_BYTES = 2_000_000
MAX_MISSING_TOLD = 200

PresetName = Literal["diverse", "from_prompts"]
Combine = Annotated[
    Literal["cartesian", "sampled"],
    Field(
        description="`cartesian`: the images of a class go through all combinations of a prompt's variables in a fixed "
        "order in which every value occurs equally often. `sampled`: each image draws a random value for each "
        "variable."
    ),
]
VariableName = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9_]{0,31}$")]
VariableValue = Annotated[
    str, Field(strict=True, max_length=200, description="Inserted unchanged; may be empty."), Storable
]
Variables = Annotated[
    dict[VariableName, Annotated[list[VariableValue], Field(min_length=1, max_length=200)]],
    Field(
        max_length=8,
        description="The values that replace `{name}` in a prompt. A literal brace is written `{{` or `}}`. The "
        f"variables of one prompt may have at most {MAX_COMBINATIONS:,} combinations.",
    ),
]
MaxAttempts = Annotated[
    int, Field(strict=True, ge=1, le=50, description="Maximum attempts at an image; after them its slot stays empty.")
]


class GuidanceRange(Request):
    """A random guidance scale for each image, drawn from min, min + 0.1, ..., max."""

    min: GuidanceScale
    max: GuidanceScale

    @model_validator(mode="after")
    def _in_order(self) -> "GuidanceRange":
        if self.min > self.max or any(abs(10 * end - round(10 * end)) > 1e-9 for end in (self.min, self.max)):
            raise PydanticCustomError("bad_range", "min must not be above max, both in steps of 0.1.")
        return self


class StepsRange(Request):
    """A random number of steps for each image, drawn from min, min + 1, ..., max."""

    min: NumInferenceSteps
    max: NumInferenceSteps

    @model_validator(mode="after")
    def _in_order(self) -> "StepsRange":
        if self.min > self.max:
            raise PydanticCustomError("bad_range", "min must not be above max.")
        return self


def _one_fault(code: Any, detail: Any) -> WrapValidator:
    """Report one fault at the field. The faults of a union name its members, which do not occur in the body."""

    def validate(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError(code, detail) from None

    return WrapValidator(validate)


GuidanceChoice = Annotated[
    GuidanceScale | GuidanceRange,
    _one_fault(
        "bad_guidance_scale", "This must be a number from 0 to 30, or an object with min <= max in steps of 0.1."
    ),
]
StepsChoice = Annotated[
    NumInferenceSteps | StepsRange,
    _one_fault("bad_num_inference_steps", "This must be a whole number from 1 to 150, or an object with min <= max."),
]


class RecipeSettings(ImageSettings):
    """Settings of a dataset's images. From a range, each image draws its own value with the dataset's seed."""

    guidance_scale: GuidanceChoice = 7.5
    num_inference_steps: StepsChoice = 50


class ClipFilter(Request):
    """Keep an image if CLIP's probability of its own class, among the texts of all classes, is at least `threshold`."""

    threshold: Annotated[float, Field(strict=True, ge=0, le=1)] | None = Field(
        None, description="Default: 1 / number of classes."
    )


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
        json_schema_extra={"minProperties": 1, "examples": [{"train_per_class": 10, "test_per_class": 2}]}
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


class PlannedClass(RecipeClassRead):
    """A class of a recipe with all defaults filled in, and its folder."""

    folder: str


class DatasetClassRead(Response):
    """A class of a dataset, its folder and its number of images."""

    name: str
    folder: str
    label: str
    num_prompts: int
    num_train: int
    num_validation: int
    num_test: int


class SettledSettings(Response):
    """The settings of a recipe with all defaults filled in."""

    seed: int
    train_per_class: int
    validation_per_class: int
    test_per_class: int
    generation: RecipeSettings
    combine: Combine
    filter: ClipFilter | None
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


class DatasetRead(SettledSettings):
    """A dataset and its progress; its prompts and variables are in its recipe."""

    preset: PresetName | None
    id: str
    name: str
    created_at: UtcTime
    status: DatasetStatus = Field(
        description="Training needs `ready`, or with `allow_incomplete` also `incomplete`, `failed` or `cancelled`."
    )
    classes: list[DatasetClassRead]
    model: ModelRef | None = Field(description="The model pack that generates the images.")
    num_images: int
    num_rejected: int = Field(description="Images that the filter has rejected; they do not belong to the dataset.")
    missing: list[MissingPlace] = Field(
        max_length=MAX_MISSING_TOLD, description=f"The first {MAX_MISSING_TOLD} empty slots of an `incomplete` dataset."
    )
    progress: Progress
    job_id: str | None


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


class DatasetPlan(SettledSettings):
    """The result of a dry run: what a request would generate or add. Nothing is stored."""

    preset: PresetName | None
    variables: dict[str, list[str]]
    name: str
    classes: list[PlannedClass]
    num_images: int = Field(description="Images that would be generated.")
    samples: list[PlannedImage] = Field(description="The first slots of some classes.")
    estimated_seconds: float | None = Field(
        description="Estimated time in seconds, without rejected images; null if there is no estimate."
    )
    estimate: str = Field(description="The basis of the estimate, or why there is none.")
