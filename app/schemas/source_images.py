"""The pictures that an image is made from, in requests and answers. Imports no services; pure."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from app.error_codes import ErrorCode
from app.schemas.common import Request, ResourceId, Response, Sha256, exactly_one

DEFAULT_STRENGTH = 0.75
MAX_MASK_BLUR = 64

# Base64 of the largest upload, 20 MB, in lines of 76 characters.
ImageB64 = Annotated[
    str,
    Field(
        strict=True,
        max_length=27_500_000,
        description="PNG, JPEG or WebP in base64 with padding, in the alphabet with `+` and `/`; spaces and line "
        "breaks are ignored. A data URL is not accepted.",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]
# An orange square of 8 x 8 pixels, so that the examples can be sent as they are.
SAMPLE_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mO8V6HBgA0wMeAAg1MCAC9BAY582uTDAAAAAElFTkSuQmCC"
Strength = Annotated[
    float,
    Field(
        strict=True,
        gt=0,
        le=1,
        description="With `init_image`: how much of it is repainted, as the share of the denoising steps that are "
        "taken. Low keeps it, 1 leaves little more than its colours. The product of strength and steps is rounded "
        "down, and must be at least 1.",
    ),
]
_MaskBlur = Annotated[
    float,
    Field(
        strict=True,
        ge=0,
        le=MAX_MASK_BLUR,
        description="Pixels of the drawn image by which the mask is blurred (the standard deviation); above 0 its edge "
        "is soft. At 0 the mask is black and white.",
    ),
]


class SourceImage(Request):
    """A picture: exactly one of `image_id` and `image_b64`."""

    image_id: ResourceId | None = Field(None, description="Id of a stored image.")
    image_b64: ImageB64 | None = None
    sha256: Sha256 | None = Field(
        None,
        description="As an answer's `parameters` have it: the picture is refused if its size and pixels, as they are "
        "used, have another hash. Default: any picture is taken.",
    )

    model_config = ConfigDict(json_schema_extra=exactly_one("image_id", "image_b64"))

    @model_validator(mode="after")
    def _one_source(self) -> "SourceImage":
        if (self.image_id is None) == (self.image_b64 is None):
            raise PydanticCustomError(ErrorCode.ONE_IMAGE_SOURCE.value, "Give exactly one of image_id and image_b64.")
        return self


class ImageToImageFields(Request):
    """What makes an image from another one; part of the requests for images."""

    init_image: SourceImage | None = Field(
        None,
        description="A picture to begin with: PNG, JPEG or WebP of one frame. It is resized to `width` x `height`, in "
        "whatever proportion; its colours become sRGB, and transparency becomes white.",
    )
    mask: SourceImage | None = Field(
        None,
        description="Where `init_image` is repainted: white is, black is not. It has the size of `init_image`.",
    )
    strength: Strength | None = Field(None, description=f"Default with `init_image`: {DEFAULT_STRENGTH}.")
    mask_blur: _MaskBlur = 0.0
    mask_invert: Annotated[bool, Field(strict=True, description="Whether black is repainted instead of white.")] = False

    @field_validator("mask", "strength")
    @classmethod
    def _with_init_image(cls, value: Any, info: ValidationInfo) -> Any:
        return _needs(value, info, "init_image", "Give an init_image too: this has no meaning without one.")

    @field_validator("mask_blur", "mask_invert")
    @classmethod
    def _with_mask(cls, value: Any, info: ValidationInfo) -> Any:
        return _needs(value, info, "mask", "Give a mask too: this has no meaning without one.")


def _needs(value: Any, info: ValidationInfo, other: str, detail: str) -> Any:
    """Refuse a value, if there is one, where another field is null; a faulty field has a fault of its own."""
    if value and other in info.data and info.data[other] is None:
        raise PydanticCustomError(ErrorCode.INIT_IMAGE_MISSING.value, "{detail}", {"detail": detail})
    return value


class SourceImageRead(Response):
    """A picture that an image was made from."""

    sha256: str = Field(description="SHA-256 of its size and its pixels as they were used: resized, in sRGB.")
    image_id: str | None = Field(None, description="The stored image that it was; null: it came with the request.")


class ImageToImageRead(Response):
    """What an image was made from besides its prompt."""

    init_image: SourceImageRead | None = Field(None, description="Null: the image began with noise alone.")
    mask: SourceImageRead | None = Field(None, description="After it was inverted and blurred.")
    strength: float | None = Field(None, description="Null without `init_image`.")
    mask_blur: float = 0.0
    mask_invert: bool = False
