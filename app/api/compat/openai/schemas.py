"""Bodies and answers under `/v1`. Imports no services; pure."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from app.api.compat.requests import Lenient
from app.schemas.common import GuidanceScale, ImageFormat, NegativePrompt, NumInferenceSteps, Prompt, Response, Seed
from app.schemas.generations import WarningRead
from app.schemas.source_images import Strength

# As many as OpenAI takes.
MAX_TEXTS = 2_048
_Word = Annotated[str, Field(max_length=256)]


class ImagesBody(Lenient):
    """A prompt and how to draw it, as `images.generate` sends it; further fields are ignored."""

    prompt: Prompt
    model: _Word | None = Field(None, description="One of `/v1/models`; at any other name the default one draws.")
    n: Annotated[int, Field(ge=1, le=10, description="Number of images; image k has seed + k.")] | None = None
    size: _Word | None = Field(None, description="`auto`, or `WIDTHxHEIGHT`, mapped to the nearest size that is drawn.")
    response_format: Literal["b64_json", "url"] | None = Field(None, description="Default: `b64_json`.")
    output_format: ImageFormat | None = Field(None, description="Default: `png`.")
    output_compression: Annotated[int, Field(ge=0, le=100, description="Not used.")] | None = None
    background: _Word | None = Field(None, description="`transparent` is not drawn.")
    quality: _Word | None = Field(None, description="Not used.")
    style: _Word | None = Field(None, description="Not used.")
    stream: bool | None = Field(None, description="Whether to answer with server-sent events.")
    partial_images: Annotated[int, Field(ge=0, le=3, description="Previews of each image, with `stream`.")] | None = (
        None
    )
    seed: Seed | None = Field(None, description="Default: one is drawn and returned.")
    steps: NumInferenceSteps | None = Field(None, description="The same as `num_inference_steps`.")
    num_inference_steps: NumInferenceSteps | None = None
    negative_prompt: NegativePrompt = ""
    guidance_scale: GuidanceScale | None = None


class EditBody(ImagesBody):
    """The text fields of a form to edit an image; further fields are ignored."""

    strength: Strength | None = Field(None, description="Default: 1 with a mask or transparent pixels, else 0.75.")


class VariationBody(EditBody):
    """The text fields of a form to vary an image; further fields are ignored."""

    prompt: Prompt | None = Field(None, description="Default: none, and no guidance.")  # type: ignore[assignment]


class ImageData(Response):
    """One image."""

    b64_json: str | None = Field(None, description="The bytes in base64.")
    url: str | None = Field(None, description="Where the stored image is; it needs a key where the node has keys.")
    seed: int


class ImagesRead(Response):
    """The images of a request."""

    created: int = Field(description="Seconds since 1970.")
    data: list[ImageData]
    size: str = Field(description="The size that was drawn.")
    output_format: ImageFormat
    background: Literal["opaque"] = "opaque"
    warnings: list[WarningRead] = Field(description="What could not be honoured; also in the header `Warning`.")


class ModelObject(Response):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Always 0: packs do not record it.")
    owned_by: str = "foxhound"


class ModelList(Response):
    """The models of the node."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


_Text = Annotated[str, Field(max_length=27_500_000)]
_Texts = Annotated[list[_Text], Field(min_length=1, max_length=MAX_TEXTS)]


def _as_list(value: Any) -> Any:
    """Make a list of one text, and refuse token ids with a sentence of their own."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, int | list) for item in values):
        raise PydanticCustomError("invalid_request", "Token ids of another model mean nothing to CLIP. Send texts.")
    return values


class EmbeddingsBody(Lenient):
    """Texts, or images as data URIs, to embed with CLIP; further fields are ignored."""

    input: Annotated[_Texts, BeforeValidator(_as_list, json_schema_input_type=_Text | _Texts)] = Field(
        description="One text, or a list of them; token ids are refused."
    )
    model: _Word | None = Field(None, description="Any name: the node embeds with its CLIP model.")
    modality: Literal["text", "image"] | None = Field(None, description="`image`: each input is a data URI.")
    encoding_format: Literal["float", "base64"] | None = Field(
        None, description="`base64`: little-endian float32. Default: `float`."
    )
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = Field(None, description="That of the model, or none.")


class EmbeddingObject(Response):
    """One embedding, of length 1."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="Numbers, or base64 of little-endian float32.")


class EmbeddingUsage(Response):
    """OpenAI's count of tokens; this node does not count them."""

    prompt_tokens: int = 0
    total_tokens: int = 0


class EmbeddingsRead(Response):
    """The embeddings in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage = EmbeddingUsage()


class OpenAiError(Response):
    """What is wrong."""

    message: str
    type: str
    param: str | None = Field(description="The faulty field.")
    code: str = Field(description="Stable word; `/docs/errors/{code}` explains it.")
    request_id: str


class OpenAiErrorBody(Response):
    """The form of every error under `/v1`."""

    error: OpenAiError


NO_USAGE: dict[str, Any] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
}
