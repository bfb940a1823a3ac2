"""Response models of stored images, of generations and of datasets. Imports no services; pure."""

from pydantic import Field

from app.schemas.common import Decision, ImageFormat, ImageSource, Page, Response, Split, UtcTime
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


class ImagePage(Page[ImageRead]):
    """A page of stored images, newest first."""


class ImageMetadata(ImageRead):
    """A stored image with its lineage: how it came to be."""

    clip_score: float | None
    label_probabilities: list[LabelProbability] | None
    reason: str | None = Field(description="Why a dataset's filter kept or rejected it; null without a filter.")
    lineage: ImageLineage
