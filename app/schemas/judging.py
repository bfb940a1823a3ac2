"""Request and response models of `/clip-score` and `/classify`. Imports no services; pure.

One image is answered as `single`, several as `batch`; `kind` tells the two answers apart.
"""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypeAliasType

from app.schemas.common import MAX_LABELS, Label, Request, ResourceId, Response, Storable, exactly_one, given
from app.schemas.generations import ModelRef, WarningRead
from app.schemas.source_images import SAMPLE_PNG, ImageB64

MAX_IMAGES = 32
Labels = Annotated[
    list[Label],
    Field(
        min_length=1,
        max_length=MAX_LABELS,
        description="Texts to score against. They must differ in more than letter case, Unicode form and spaces.",
    ),
]
ImageIds = Annotated[list[ResourceId], Field(min_length=1, max_length=MAX_IMAGES)]
MAX_NEAREST = 20
Nearest = Annotated[int, Field(strict=True, ge=1, le=MAX_NEAREST)]
TopK = Annotated[int, Field(strict=True, ge=1, le=1_000)]
_SOURCES = ("image_id", "image_b64", "image_ids")
_EXPLAINS = {"required": ["explain"], "properties": {"explain": {"const": True}}}


class JudgedImages(Request):
    """The images to judge: exactly one of the three fields."""

    image_id: ResourceId | None = Field(None, description="Id of a stored image.")
    image_b64: ImageB64 | None = None
    image_ids: ImageIds | None = Field(None, description="Ids of several stored images; the response has `results`.")


class ClipScoreRequest(JudgedImages):
    """An image and the labels to score it against."""

    labels: Labels
    template: Annotated[str, Field(strict=True, max_length=200), Storable] | None = Field(
        None, description="Text with `{}`, which each label replaces, e.g. `a photo of {}`; default: the label alone."
    )

    model_config = ConfigDict(
        json_schema_extra={**exactly_one(*_SOURCES), "examples": [{"image_b64": SAMPLE_PNG, "labels": ["fox", "dog"]}]}
    )


class LabelScore(Response):
    """The scores of one label for an image."""

    label: str
    probability: float = Field(ge=0, le=1, description="Softmax over the labels of the request.")
    logit: float = Field(description="CLIP's logits_per_image.")
    cosine: float = Field(ge=-1.001, le=1.001, description="Cosine of image and text embedding.")


class ClipScoreResult(Response):
    """One image's scores, in the order of the labels."""

    image_id: str | None
    scores: list[LabelScore]


class ClipScoreRead(Response):
    """The scores of one image."""

    kind: Literal["single"] = "single"
    model: ModelRef
    scores: list[LabelScore]
    warnings: list[WarningRead]


class ClipScoresRead(Response):
    """The scores of several images, in their order."""

    kind: Literal["batch"] = "batch"
    model: ModelRef
    results: list[ClipScoreResult]
    warnings: list[WarningRead]


ClipScoreAnswer = TypeAliasType(
    "ClipScoreAnswer",
    Annotated[
        ClipScoreRead | ClipScoresRead,
        Field(discriminator="kind", description="The scores of one image, or of several."),
    ],
)


class ClassifyRequest(JudgedImages):
    """An image and how to classify it."""

    top_k: TopK = Field(5, description="Number of predictions; limited to the number of classes.")
    model: Annotated[str, Field(strict=True, min_length=1, max_length=64), Storable] | None = Field(
        None,
        description="Id or name of a trained model, or `photo`: the 1,000 classes of ImageNet; default: the pack's "
        "pretrained classifier.",
    )
    explain: bool = Field(
        False,
        strict=True,
        description="Whether to return a picture of where the classifier sees the most probable class. One image only; "
        "takes a fraction of a second for convolutional networks (Grad-CAM), and seconds for others (occlusion).",
    )
    nearest: Nearest | None = Field(
        None,
        description="Of a trained model: how many training images to return that look most similar to its backbone.",
    )

    model_config = ConfigDict(
        json_schema_extra={
            **exactly_one(*_SOURCES, never=[{"allOf": [given("image_ids"), _EXPLAINS]}]),
            "examples": [{"image_b64": SAMPLE_PNG, "top_k": 5}],
        }
    )


class Prediction(Response):
    """One class with its probability."""

    label: str
    index: int
    probability: float = Field(ge=0, le=1)


class NearestImage(Response):
    """A training image, and how near it is."""

    image_id: str
    url: str
    label: str = Field(description="Its class.")
    similarity: float = Field(ge=-1, le=1, description="Cosine of the features of both images.")
    distance: float = Field(ge=0, le=2, description="Euclidean distance of the features, each of length 1.")


class NearestRead(Response):
    """The training images that are most similar to an image, the most similar first."""

    images: list[NearestImage]
    num_compared: int = Field(
        ge=0,
        description="Training images that were compared: those whose features are cached, evenly chosen ones above "
        "20,000 or 64 MB of features.",
    )
    num_training: int = Field(ge=0, description="Training images of the model's dataset, as it is now.")


class ClassifyResult(Response):
    """One image's predictions, most probable first."""

    image_id: str | None
    predictions: list[Prediction]
    nearest: NearestRead | None = Field(None, description="With `nearest`; else null.")


class ClassificationRead(Response):
    """The predictions for one image."""

    kind: Literal["single"] = "single"
    model: ModelRef
    predictions: list[Prediction]
    explanation_png_b64: str | None = Field(
        None,
        description="The image as the network got it, with the heat of the most probable class over it, as PNG in "
        "base64; null without `explain`.",
    )
    nearest: NearestRead | None = Field(None, description="With `nearest`; else null.")


class ClassificationsRead(Response):
    """The predictions for several images, in their order."""

    kind: Literal["batch"] = "batch"
    model: ModelRef
    results: list[ClassifyResult]


ClassificationAnswer = TypeAliasType(
    "ClassificationAnswer",
    Annotated[
        ClassificationRead | ClassificationsRead,
        Field(discriminator="kind", description="The predictions for one image, or for several."),
    ],
)
