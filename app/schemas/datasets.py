"""Labelled datasets: the recipe that their images are drawn by, and what came of it."""

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

PresetName = Literal["diverse"]
Combine = Annotated[
    Literal["cartesian", "sampled"],
    Field(
        description="`cartesian`: a class's images walk through all combinations of a prompt's variables in a fixed "
        "order that meets every value equally often; `sampled`: each image draws a value for each variable."
    ),
]
VariableName = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9_]{0,31}$")]
VariableValue = Annotated[
    str, Field(strict=True, max_length=200, description="Put in as it is; may be empty."), Storable
]
Variables = Annotated[
    dict[VariableName, Annotated[list[VariableValue], Field(min_length=1, max_length=200)]],
    Field(
        max_length=8,
        description="What `{name}` in a prompt stands for. A literal brace is written `{{` or `}}`. The variables of "
        f"one prompt may have {MAX_COMBINATIONS:,} combinations.",
    ),
]
MaxAttempts = Annotated[
    int, Field(strict=True, ge=1, le=50, description="Tries at an image before its place stays empty.")
]


class GuidanceRange(Request):
    """Each image draws its own guidance scale from min, min + 0.1, ..., max."""

    min: GuidanceScale
    max: GuidanceScale

    @model_validator(mode="after")
    def _in_order(self) -> "GuidanceRange":
        if self.min > self.max or any(abs(10 * end - round(10 * end)) > 1e-9 for end in (self.min, self.max)):
            raise PydanticCustomError("bad_range", "min must not be above max, both in steps of 0.1.")
        return self


class StepsRange(Request):
    """Each image draws its own number of steps from min ... max."""

    min: NumInferenceSteps
    max: NumInferenceSteps

    @model_validator(mode="after")
    def _in_order(self) -> "StepsRange":
        if self.min > self.max:
            raise PydanticCustomError("bad_range", "min must not be above max.")
        return self


def _one_fault(code: Any, detail: Any) -> WrapValidator:
    """Tell one fault at the field itself: a union's own name its members, which are nowhere in the body."""

    def validate(value: Any, inner: Callable[[Any], Any]) -> Any:
        try:
            return inner(value)
        except ValidationError:
            raise PydanticCustomError(code, detail) from None

    return WrapValidator(validate)


GuidanceChoice = Annotated[
    GuidanceScale | GuidanceRange,
    _one_fault(
        "bad_guidance_scale", "must be a number from 0 to 30, or min and max of such, in order, in steps of 0.1"
    ),
]
StepsChoice = Annotated[
    NumInferenceSteps | StepsRange,
    _one_fault("bad_num_inference_steps", "must be a whole number from 1 to 150, or min and max of such, in order"),
]


class RecipeSettings(ImageSettings):
    """How a dataset's images are made; a range lets every image draw its own value from the dataset's seed."""

    guidance_scale: GuidanceChoice = 7.5
    num_inference_steps: StepsChoice = 50


class ClipFilter(Request):
    """Keep an image if CLIP gives its own class at least `threshold` among the texts of all classes."""

    threshold: Annotated[float, Field(strict=True, ge=0, le=1)] | None = Field(
        None, description="Default: 1 / number of classes."
    )


class DatasetClass(Request):
    """A class and the prompts that draw it, used in turn."""

    name: Annotated[Label, Field(description="Any text; the folder is a safe form of it.")]
    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=100, description="May hold `{variables}`.")]
    negative_prompt: NegativePrompt = ""
    label: Label | None = Field(
        None, description="The class in words for CLIP, which is asked for `a photo of a {label}`; default: the name."
    )


class DatasetCreate(Request):
    """A dataset to generate: its classes, how many images of each, and the recipe that draws them.

    `classes` and `variables` together have at most 2,000,000 bytes as JSON in UTF-8 without white space, what a preset
    adds included (`recipe_too_large`).
    """

    name: Name
    seed: Seed | None = Field(None, description="Every image follows from it; default: one is drawn.")
    classes: Annotated[list[DatasetClass], Field(min_length=2, max_length=1_000)]
    train_per_class: PerClass = 40
    test_per_class: PerClass = 10
    preset: PresetName | None = Field(
        None,
        description="`diverse`: what makes classifiers trained on such images better: low random guidance, styles and "
        "backgrounds around each prompt, the CLIP filter. Fields that are given win.",
    )
    generation: RecipeSettings = Field(default_factory=RecipeSettings)
    variables: Variables = Field(default_factory=dict)
    combine: Combine = "cartesian"
    filter: ClipFilter | None = Field(None, description="Replace images that CLIP takes for another class.")
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
    """How many more images of each class a dataset is to have, by the recipe that it has."""

    train_per_class: PerClass = Field(0, description="How many more of each class, beside those that there are.")
    test_per_class: PerClass = Field(0, description="How many more of each class, beside those that there are.")

    model_config = ConfigDict(
        json_schema_extra={"minProperties": 1, "examples": [{"train_per_class": 10, "test_per_class": 2}]}
    )

    @model_validator(mode="after")
    def _makes_something(self) -> "DatasetExtend":
        if not self.train_per_class and not self.test_per_class:
            raise PydanticCustomError("nothing_to_make", "One of the numbers must be above 0.")
        return self


class RecipeClassRead(Response):
    """A class of a recipe as settled."""

    name: str
    prompts: list[str]
    negative_prompt: str
    label: str


class PlannedClass(RecipeClassRead):
    """A class of a recipe as settled, and its folder."""

    folder: str


class DatasetClassRead(Response):
    """A class of a dataset, its folder, and how many images it has."""

    name: str
    folder: str
    label: str
    num_prompts: int
    num_train: int
    num_test: int


class SettledSettings(Response):
    """The settings of a recipe, every value settled."""

    seed: int
    train_per_class: int
    test_per_class: int
    generation: RecipeSettings
    combine: Combine
    filter: ClipFilter | None
    max_attempts: int


class DatasetRecipeRead(SettledSettings):
    """The recipe of a dataset in the form that `POST /datasets` takes; what a preset put in is part of it."""

    name: str
    classes: list[RecipeClassRead]
    variables: dict[str, list[str]]


class MissingPlace(Response):
    """A place of a dataset that stayed empty, and what became of the tries at it."""

    class_name: str
    split: Split
    position: int
    num_rejected: int = Field(description="Tries that the filter rejected.")
    num_flagged: int = Field(description="Tries that the safety checker flagged.")
    num_failed: int = Field(description="Tries at which the model failed.")


class DatasetRead(SettledSettings):
    """A dataset and how far it is; its prompts and variables are in its recipe."""

    preset: PresetName | None
    id: str
    name: str
    created_at: UtcTime
    status: DatasetStatus = Field(
        description="`ready` trains; `incomplete`, `failed` and `cancelled` do with `allow_incomplete`."
    )
    classes: list[DatasetClassRead]
    model: ModelRef | None = Field(description="The pack that draws the images.")
    num_images: int
    num_rejected: int = Field(description="Images that the filter rejected so far; they are no part of the dataset.")
    missing: list[MissingPlace] = Field(
        max_length=MAX_MISSING_TOLD, description=f"The first {MAX_MISSING_TOLD} empty places of an `incomplete` one."
    )
    progress: Progress
    job_id: str | None


class PlannedImage(Response):
    """What one place's first try would be made from."""

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
    """What a request would make; nothing of it is stored. Of an extension, what would be added to which recipe."""

    preset: PresetName | None
    variables: dict[str, list[str]]
    name: str
    classes: list[PlannedClass]
    num_images: int = Field(description="Images that would be made.")
    samples: list[PlannedImage] = Field(description="The first places of some classes, as they would be drawn.")
    estimated_seconds: float | None = Field(description="Without the time of rejected images.")
    estimate: str = Field(description="What the estimate rests on, or why there is none.")
