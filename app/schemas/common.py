"""What every resource's schemas share: text and number rules, named enums, the bases of bodies, pages.

Bounds here are static: they are in the OpenAPI file and do not depend on the running node. A `TypeAliasType` is one
named component of that file, whatever uses it; a plain alias would be repeated at each use, and generators of clients
would name each copy after its place.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import combinations, pairwise
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError
from typing_extensions import TypeAliasType

from app.image_spec import MAX_PROMPT_CHARS, MAX_SEED, SIDE_MULTIPLE, NoiseSchedulerName, OutputFormat
from app.image_spec import PromptSyntax as PromptSyntaxName
from app.names import is_visible
from app.step_rows import Speed as SpeedName
from app.step_rows import TimestepSpacing as TimestepSpacingName

MAX_LABELS = 256
MAX_TIMESTEP = 999  # of a thousand, in every Stable Diffusion
MAX_LABEL_CHARS = 200
Item = TypeVar("Item")

_Split = Literal["train", "validation", "test"]
Split = TypeAliasType("Split", Annotated[_Split, Field(description="A part of a dataset.")])
SPLITS: tuple[_Split, ...] = get_args(_Split)
ImageSource = TypeAliasType(
    "ImageSource",
    Annotated[Literal["synthetic", "real"], Field(description="`synthetic`: generated here; `real`: uploaded.")],
)
Decision = TypeAliasType(
    "Decision",
    Annotated[Literal["kept", "rejected"], Field(description="Of a dataset's filter; `kept` without a filter.")],
)
Review = TypeAliasType(
    "Review",
    Annotated[
        Literal["accepted", "rejected"],
        Field(description="Of a person; `rejected` images are left out of training, exports and the version."),
    ],
)
ReviewState = TypeAliasType(
    "ReviewState",
    Annotated[Literal["accepted", "rejected", "unreviewed"], Field(description="A review, or that there is none.")],
)
ImageFormat = TypeAliasType("ImageFormat", Annotated[OutputFormat, Field(description="Of an image's file.")])
NoiseScheduler = TypeAliasType(
    "NoiseScheduler", Annotated[NoiseSchedulerName, Field(description="Noise scheduler of the denoising.")]
)
Speed = TypeAliasType(
    "Speed",
    Annotated[
        SpeedName,
        Field(
            description="`exact` computes every denoising step. `balanced` computes about two fifths of 50 and "
            "forecasts the others: nearly the same image; without effect for `euler_a`, `lcm`, `tcd`, and for up to 8 "
            "steps. `fast` adds the pack's few-step weights: by default four steps without guidance. `/capabilities` "
            "lists what this node offers, and what was measured."
        ),
    ],
)
TimestepSpacing = TypeAliasType(
    "TimestepSpacing",
    Annotated[
        TimestepSpacingName,
        Field(
            description="Which timesteps the steps have: `trailing` begins at the last timestep of the training, where "
            "the image is noise alone; `leading` ends at the first; `linspace` does both. Not for `dpmpp_2m_karras`, "
            "`lcm` and `tcd`."
        ),
    ],
)


def _clean_text(value: str) -> str:
    """Refuse what UTF-8 or Postgres cannot hold: lone surrogates and NUL."""
    try:
        value.encode()
    except UnicodeEncodeError:
        is_storable = False
    else:
        is_storable = "\x00" not in value
    if not is_storable:
        raise PydanticCustomError("text_not_storable", "This must not contain NUL or lone surrogates.")
    return value


def _visible_text(value: str) -> str:
    """Refuse text without a single visible character."""
    if not any(map(is_visible, value)):
        raise PydanticCustomError("text_empty", "This must contain at least one visible character.")
    return value


def _utc_z(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _empty_for_null(value: Any) -> Any:
    return "" if value is None else value


# In an annotation, a text's length bounds come before these two: pydantic counts characters only of a plain string, and
# a text that is too long is not checked further.
Storable = AfterValidator(_clean_text)
Visible = AfterValidator(_visible_text)

Prompt = Annotated[
    str,
    Field(strict=True, min_length=1, max_length=MAX_PROMPT_CHARS, description="What to draw; 77 tokens count."),
    Storable,
    Visible,
]
_NegativeText = Annotated[str, Field(strict=True, max_length=MAX_PROMPT_CHARS)]
NegativePrompt = Annotated[
    _NegativeText,
    Storable,
    BeforeValidator(_empty_for_null, json_schema_input_type=_NegativeText | None),
    Field(description="What to keep out of the image; null is none."),
]
Label = Annotated[str, Field(strict=True, min_length=1, max_length=MAX_LABEL_CHARS), Storable, Visible]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED, json_schema_extra={"format": "int64"})]
GuidanceScale = Annotated[float, Field(strict=True, ge=0, le=30, description="Weight of the prompt; <= 1: none.")]
PromptSyntax = TypeAliasType(
    "PromptSyntax",
    Annotated[
        PromptSyntaxName,
        Field(
            description="`plain`: brackets are text, and 77 tokens are used. `weighted`: in both prompts `(fox:1.3)` "
            "weighs the text, `(fox)` 1.1 times as much, `[fox]` 1.1 times less; a backslash makes a bracket text; "
            "prompts of up to 300 tokens are read in chunks of 75."
        ),
    ],
)
ClipSkip = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=11,
        description="Layers of the text encoder that are left out at its end, as in diffusers: 1 is the last but one.",
    ),
]
Preview = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=150,
        description="n: every n-th step event of an image has a PNG of what the step predicts, an eighth of its width "
        "and height. Changes no image. A client that reads slowly gets the newest preview alone.",
    ),
]
NumInferenceSteps = Annotated[int, Field(strict=True, ge=1, le=150, description="Denoising steps.")]
Side = Annotated[
    int,
    Field(strict=True, ge=64, le=1024, multiple_of=SIDE_MULTIPLE, description=f"Pixels, in steps of {SIDE_MULTIPLE}."),
]
Name = Annotated[
    str,
    Field(
        strict=True,
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="Lower-case name, also the folder's name.",
        json_schema_extra={"maxLength": 63},
    ),
]
ResourceId = Annotated[
    str, Field(strict=True, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="Opaque id.")
]
UtcTime = Annotated[
    datetime, PlainSerializer(_utc_z, return_type=str), Field(json_schema_extra={"format": "date-time"})
]


Sha256 = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes.")]


def given(name: str) -> dict[str, Any]:
    """Return the schema of an object in which a member is there and not null."""
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


def exactly_one(*names: str, never: Sequence[dict[str, Any]] = ()) -> dict[str, Any]:
    """Return what a schema of an object needs so that exactly one of some members is there and not null.

    Said by `not`, which generators of clients pass over; `oneOf` beside `properties` would be a union to them.

    Args:
        names: Of the members.
        never: Schemas of further objects that are refused.
    """
    two = [{"allOf": [given(first), given(second)]} for first, second in combinations(names, 2)]
    return {"not": {"anyOf": [*two, {"not": {"anyOf": [given(name) for name in names]}}, *never]}}


def _descending(value: list[int]) -> list[int]:
    if any(first <= second for first, second in pairwise(value)):
        raise PydanticCustomError("bad_timesteps", "Each timestep must be below the one before it.")
    return value


def _in_order(value: list[float]) -> list[float]:
    if value[0] >= value[1]:
        raise PydanticCustomError("bad_guidance_interval", "The first number must be below the second.")
    return value


DrawingModelName = Annotated[
    str, Field(strict=True, min_length=1, max_length=200, description="As `/capabilities` lists it."), Storable
]
AdapterName = Annotated[
    str, Field(strict=True, min_length=1, max_length=200, description="As `/capabilities` lists it."), Storable
]
LoraWeight = Annotated[
    float, Field(strict=True, ge=-10, le=10, description="0 changes nothing, 1 is as it was trained.")
]
Timesteps = Annotated[
    list[Annotated[int, Field(strict=True, ge=0, le=MAX_TIMESTEP)]],
    Field(
        min_length=1,
        max_length=150,
        description="All timesteps, from noise to image, each below the one before; in place of `timestep_spacing`. "
        "`num_inference_steps` is their number. Not for `dpmpp_2m_karras`; `pndm` assumes even distances.",
        examples=[[999, 850, 736, 645, 545, 455, 343, 233, 124, 24]],
    ),
    AfterValidator(_descending),
]
GuidanceInterval = Annotated[
    list[Annotated[float, Field(strict=True, ge=0, le=1)]],
    Field(
        min_length=2,
        max_length=2,
        description="From and to, as parts of the schedule: steps outside are not guided and cost half.",
        examples=[[0.0, 0.8]],
    ),
    AfterValidator(_in_order),
]


class Request(BaseModel):
    """Base of request bodies: unknown fields and non-finite numbers are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Response(BaseModel):
    """Base of answers: every field is always there, and the OpenAPI file lists all of them.

    Reading is not strict: JSON that another release stored may have members without a field here.
    """

    model_config = ConfigDict(
        from_attributes=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
        json_schema_serialization_defaults_required=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Close the schema: without this, generated clients give each answer a map of untyped further members."""
        schema = handler(core_schema)
        handler.resolve_ref_schema(schema)["additionalProperties"] = False
        return schema


class Recorded(Response):
    """Base of what was stored as JSON, maybe by another release: members that were not stored are left out."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    @model_serializer(mode="wrap")
    def _only_stored(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in serialize(self).items() if name in self._stored}

    @property
    def _stored(self) -> set[str]:
        """The names of the stored members, and their names in JSON."""
        aliases = {type(self).model_fields[name].alias or name for name in self.model_fields_set}
        return aliases | self.model_fields_set

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Describe the members, and not what the serializer returns."""
        return super().__get_pydantic_json_schema__(_without_serializer(core_schema), handler)


def _without_serializer(core_schema: Any) -> Any:
    inner = core_schema.get("schema")
    kept = {name: value for name, value in core_schema.items() if name != "serialization"}
    return {**kept, "schema": _without_serializer(inner)} if isinstance(inner, dict) else kept


class Page(Response, Generic[Item]):
    """A page of a list, newest first, and the cursor of the next one."""

    items: list[Item]
    next_cursor: str | None = Field(description="Hand it back as `cursor` for the next page; null on the last.")
    total: int | None = Field(
        None, ge=0, description="Items of all pages; null above 10,000, and for images, which are not counted."
    )
