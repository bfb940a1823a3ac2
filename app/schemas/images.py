"""Response models of stored images, of generations and of datasets. Imports no services; pure."""

from pydantic import Field

from app.schemas.common import Decision, ImageFormat, ImageSource, Page, Request, Response, Review, Split, UtcTime
from app.schemas.generations import LabelProbability
from app.schemas.lineage import ImageLineage


class ImageRead(Response):
    """A stored image, of a generation or of a dataset."""

    id: str
    created_at: UtcTime
    url: str
    width: int
    height: int
    format: ImageFormat
    num_bytes: int
    sha256: str
    seed: int | None
    flagged: bool | None
    generation_id: str | None
    dataset_id: str | None
    class_name: str | None
    split: Split | None
    source: ImageSource
    decision: Decision
    review: Review | None = Field(description="Null: nobody has decided, or it belongs to no dataset.")
    clip_score: float | None = Field(description="100 x the cosine of image and prompt; null if it was not scored.")


class ImageReview(Request):
    """What a person decides about an image of a dataset."""

    review: Review | None = Field(description="Null takes the decision back.")


class ImagePage(Page[ImageRead]):
    """A page of stored images, newest first."""


class ImageMetadata(ImageRead):
    """A stored image with its lineage: how it came to be."""

    label_probabilities: list[LabelProbability] | None
    reason: str | None = Field(description="Why a dataset's filter kept or rejected it; null without a filter.")
    lineage: ImageLineage
