"""What every resource's schemas share: text and number rules, pages, problems.

Bounds here are static: they are in the OpenAPI file and do not depend on the running node.
"""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from app.image_spec import MAX_PROMPT_CHARS, MAX_SEED, SIDE_MULTIPLE
from app.names import is_visible

MAX_LABELS = 256
MAX_LABEL_CHARS = 200
Item = TypeVar("Item")

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
ImageSource = Literal["synthetic", "real"]
Decision = Literal["kept", "rejected"]


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
NumInferenceSteps = Annotated[int, Field(strict=True, ge=1, le=150, description="Denoising steps.")]
Side = Annotated[
    int,
    Field(strict=True, ge=64, le=1024, multiple_of=SIDE_MULTIPLE, description=f"Pixels, in steps of {SIDE_MULTIPLE}."),
]
Name = Annotated[
    str,
    Field(strict=True, pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Lower-case name, also the folder's name."),
]
ResourceId = Annotated[
    str, Field(strict=True, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$", description="Opaque id.")
]
UtcTime = Annotated[
    datetime, PlainSerializer(_utc_z, return_type=str), Field(json_schema_extra={"format": "date-time"})
]


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the bytes.")]


class Request(BaseModel):
    """Base of request bodies: unknown fields and non-finite numbers are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Response(BaseModel):
    """Base of answers: every field is always there."""

    model_config = ConfigDict(from_attributes=True, protected_namespaces=(), hide_input_in_errors=True)


class Page(Response, Generic[Item]):
    """A page of a list, newest first, and the cursor of the next one."""

    items: list[Item]
    next_cursor: str | None = Field(description="Hand it back as `cursor` for the next page; null on the last.")
