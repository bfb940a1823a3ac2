"""How the images of a dataset are made: settings and ranges, variables of prompts, the filter. No services; pure."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from app.schemas.common import (
    GuidanceInterval,
    GuidanceScale,
    ImageFormat,
    NoiseScheduler,
    NumInferenceSteps,
    Request,
    Response,
    Speed,
    Storable,
    TimestepSpacing,
)
from app.schemas.generations import ImageSettings, LoraUseRead

MAX_COMBINATIONS = 1_000_000
# Of images that begin with a shot: the best of `bench.shots` on a seed that its result does not use (decision 0076).
DEFAULT_SHOT_STRENGTH = 0.4

PresetName = TypeAliasType("PresetName", Literal["diverse", "from_prompts"])
Combine = TypeAliasType(
    "Combine",
    Annotated[
        Literal["cartesian", "sampled"],
        Field(
            description="`cartesian`: the images of a class go through all combinations of a prompt's variables in a "
            "fixed order in which every value occurs equally often. `sampled`: each image draws a random value for "
            "each variable."
        ),
    ],
)
VariableName = Annotated[str, Field(strict=True, pattern=r"^[a-z][a-z0-9_]{0,31}$")]
VariableValue = Annotated[
    str, Field(strict=True, max_length=200, description="Inserted unchanged; may be empty."), Storable
]


def _named_values(schema: dict[str, Any]) -> None:
    """Tell the names' pattern apart from the values: generators of clients do not read `patternProperties`."""
    ((pattern, values),) = schema.pop("patternProperties").items()
    schema |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}


Variables = Annotated[
    dict[VariableName, Annotated[list[VariableValue], Field(min_length=1, max_length=200)]],
    Field(
        max_length=8,
        json_schema_extra=_named_values,
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


GuidanceChoice = TypeAliasType(
    "GuidanceChoice",
    Annotated[
        GuidanceScale | GuidanceRange,
        _one_fault(
            "bad_guidance_scale", "This must be a number from 0 to 30, or an object with min <= max in steps of 0.1."
        ),
        Field(description="One guidance scale for all images, or a range to draw from for each."),
    ],
)
StepsChoice = TypeAliasType(
    "StepsChoice",
    Annotated[
        NumInferenceSteps | StepsRange,
        _one_fault(
            "bad_num_inference_steps", "This must be a whole number from 1 to 150, or an object with min <= max."
        ),
        Field(description="One number of denoising steps for all images, or a range to draw from for each."),
    ],
)


Strength = Annotated[float, Field(strict=True, gt=0, le=1)]


class StrengthRange(Request):
    """A random strength for each image, drawn from min, min + 0.05, ..., max."""

    min: Strength
    max: Strength

    @model_validator(mode="after")
    def _in_order(self) -> "StrengthRange":
        if self.min > self.max or any(abs(20 * end - round(20 * end)) > 1e-9 for end in (self.min, self.max)):
            raise PydanticCustomError("bad_range", "min must not be above max, both in steps of 0.05.")
        return self


StrengthChoice = TypeAliasType(
    "StrengthChoice",
    Annotated[
        Strength | StrengthRange,
        _one_fault(
            "bad_strength", "This must be a number above 0, at most 1, or an object with min <= max in steps of 0.05."
        ),
        Field(
            description="How much of a shot is repainted, as the share of the denoising steps that are taken: one "
            "value for all images that begin with a shot, or a range to draw from for each. Low keeps the shot, 1 "
            "leaves little more than its colours."
        ),
    ],
)


class RecipeSettings(ImageSettings):
    """Settings of a dataset's images. From a range, each image draws its own value with the dataset's seed."""

    guidance_scale: GuidanceChoice = 7.5
    num_inference_steps: StepsChoice = 50
    strength: StrengthChoice | None = Field(
        None, description=f"Only where a class has `from_images`; null: {DEFAULT_SHOT_STRENGTH} there."
    )


class ClipFilter(Request):
    """Keep an image if CLIP's probability of its own class, among the texts of all classes, is at least `threshold`."""

    threshold: Annotated[float, Field(strict=True, ge=0, le=1)] | None = Field(
        None, description="Default: 1 / number of classes."
    )


class RecipeSettingsRead(Response):
    """Settings of a dataset's images. From a range, each image draws its own value with the dataset's seed."""

    width: int | None = Field(None, description="Null: the loaded model's own width.")
    height: int | None = Field(None, description="Null: the loaded model's own height.")
    scheduler: NoiseScheduler | None = Field(None, description="Null: the loaded model's own.")
    output_format: ImageFormat = "png"
    guidance_scale: GuidanceChoice
    num_inference_steps: StepsChoice
    strength: StrengthChoice | None = Field(None, description="Null: no class has `from_images`.")
    speed: Speed = "exact"
    timestep_spacing: TimestepSpacing | None = Field(None, description="Null: the loaded model's own.")
    guidance_interval: GuidanceInterval | None = Field(None, description="Null: guidance at every step.")
    loras: list[LoraUseRead] = Field(default_factory=list)
    embeddings: list[str] = Field(default_factory=list)
    model: str | None = Field(None, description="Null: the node's default model.")


class ClipFilterRead(Response):
    """The filter of a dataset's images: at least which probability CLIP must give an image's own class."""

    threshold: float | None = Field(description="Null: 1 / number of classes.")
