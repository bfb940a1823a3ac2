"""Judging images: what `/clip-score` and `/classify` take and answer."""

from typing import Annotated

from pydantic import ConfigDict, Field

from app.schemas.common import MAX_LABELS, Label, Request, ResourceId, Response, Storable
from app.schemas.generations import ModelRef, WarningRead

MAX_IMAGES = 32
# Base64 of the largest upload, 20 MB, in lines of 76 characters.
ImageB64 = Annotated[
    str,
    Field(
        strict=True,
        max_length=27_500_000,
        description="PNG, JPEG or WebP in base64 with padding, in the alphabet with `+` and `/`; spaces and line "
        "breaks are skipped. No data URL.",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]
Labels = Annotated[
    list[Label],
    Field(
        min_length=1,
        max_length=MAX_LABELS,
        description="Texts to choose from, all different; letter case, Unicode form and spaces do not count.",
    ),
]
ImageIds = Annotated[list[ResourceId], Field(min_length=1, max_length=MAX_IMAGES)]
TopK = Annotated[int, Field(strict=True, ge=1, le=1_000)]


class JudgedImages(Request):
    """Which image or images to judge: exactly one of the three."""

    image_id: ResourceId | None = Field(None, description="An image stored here.")
    image_b64: ImageB64 | None = None
    image_ids: ImageIds | None = Field(None, description="Several stored images; the answer has `results`.")


class ClipScoreRequest(JudgedImages):
    """An image and the labels to score it against."""

    labels: Labels
    template: Annotated[str, Field(strict=True, max_length=200), Storable] | None = Field(
        None, description="Wraps each label at `{}`, e.g. `a photo of {}`; default: the label as it is."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"image_id": "…", "labels": ["fox", "dog"]}]})


class LabelScore(Response):
    """How well a label fits an image."""

    label: str
    probability: float = Field(ge=0, le=1, description="Softmax over the labels asked for.")
    logit: float = Field(description="CLIP's logits_per_image.")
    cosine: float = Field(ge=-1.001, le=1.001, description="Cosine of image and text embedding.")


class ClipScoreResult(Response):
    """One image's scores, in the order of the labels."""

    image_id: str | None
    scores: list[LabelScore]


class ClipScoreRead(Response):
    """The scores of one image."""

    model: ModelRef
    scores: list[LabelScore]
    warnings: list[WarningRead]


class ClipScoresRead(Response):
    """The scores of several images, in their order."""

    model: ModelRef
    results: list[ClipScoreResult]
    warnings: list[WarningRead]


class ClassifyRequest(JudgedImages):
    """An image and how to classify it."""

    top_k: TopK = Field(5, description="Cut to the number of classes.")
    model: Annotated[str, Field(strict=True, min_length=1, max_length=64), Storable] | None = Field(
        None, description="Id or name of a model trained here; default: the pack's pretrained classifier."
    )

    model_config = ConfigDict(json_schema_extra={"examples": [{"image_id": "…", "top_k": 5}]})


class Prediction(Response):
    """One class with its probability."""

    label: str
    index: int
    probability: float = Field(ge=0, le=1)


class ClassifyResult(Response):
    """One image's predictions, most probable first."""

    image_id: str | None
    predictions: list[Prediction]


class ClassificationRead(Response):
    """The predictions for one image."""

    model: ModelRef
    predictions: list[Prediction]


class ClassificationsRead(Response):
    """The predictions for several images, in their order."""

    model: ModelRef
    results: list[ClassifyResult]
