"""Bodies and answers under `/hf`. Imports no services; pure."""

from typing import Annotated

from pydantic import Field

from app.api.compat.requests import Lenient
from app.schemas.common import (
    MAX_LABELS,
    GuidanceScale,
    Label,
    NegativePrompt,
    NumInferenceSteps,
    Prompt,
    Response,
    Seed,
)
from app.schemas.source_images import Strength

WantedSide = Annotated[int, Field(ge=1, le=16_384, description="Pixels; mapped to the nearest size that is drawn.")]
_Base64 = Annotated[str, Field(max_length=27_500_000, description="PNG, JPEG or WebP in base64, or a data URI.")]


class TextToImageParameters(Lenient):
    """How the image is drawn; further fields are ignored."""

    negative_prompt: NegativePrompt = ""
    width: WantedSide | None = None
    height: WantedSide | None = None
    num_inference_steps: NumInferenceSteps | None = None
    guidance_scale: GuidanceScale | None = None
    scheduler: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="A name of ours, or of a class of diffusers."
    )
    seed: Seed | None = Field(None, description="Default: one is drawn; a header has it.")


class TextToImageBody(Lenient):
    """A prompt, and how to draw it."""

    inputs: Prompt
    parameters: TextToImageParameters | None = None


class WantedSize(Lenient):
    """The size of the image."""

    width: WantedSide
    height: WantedSide


class ImageToImageParameters(TextToImageParameters):
    """How the image is changed; further fields are ignored."""

    prompt: Prompt | None = Field(None, description="Default: none, and no guidance.")
    target_size: WantedSize | None = Field(None, description="Default: that of the image, in about the model's area.")
    strength: Strength | None = Field(None, description="Default: 0.75.")
    mask_image: _Base64 | None = Field(None, description="White is repainted; of the image's size.")


class ImageToImageBody(Lenient):
    """An image, and how to change it."""

    inputs: _Base64
    parameters: ImageToImageParameters | None = None


class ClassificationParameters(Lenient):
    """How the image is classified; further fields are ignored."""

    top_k: Annotated[int, Field(ge=1, le=1_000, description="Default: 5.")] | None = None
    function_to_apply: Annotated[str, Field(max_length=20)] | None = Field(None, description="`softmax`, or none.")


class ClassificationBody(Lenient):
    """An image, and how to classify it."""

    inputs: _Base64
    parameters: ClassificationParameters | None = None


class ZeroShotParameters(Lenient):
    """The labels to choose from; further fields are ignored."""

    candidate_labels: Annotated[list[Label], Field(min_length=1, max_length=MAX_LABELS)]
    hypothesis_template: Annotated[str, Field(max_length=200)] | None = Field(
        None, description="Text with `{}`, which each label replaces; default: the label alone."
    )


class ZeroShotBody(Lenient):
    """An image, and the labels to choose from."""

    inputs: _Base64
    parameters: ZeroShotParameters


class LabelScoreRead(Response):
    """A label with its probability."""

    label: str
    score: float


class EndpointInfo(Response):
    """What answers here."""

    model_id: str
    model_sha: str
    model_device_type: str
    version: str


class HuggingFaceError(Response):
    """The form of every error under `/hf`."""

    error: str
    code: str = Field(description="Stable word; `/docs/errors/{code}` explains it.")
    request_id: str
