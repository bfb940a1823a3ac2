"""The filters of lists of images beside dataset, class and split. Opens no session. Pure."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_

from app.db.models import Image
from app.schemas.common import ReviewState

# Words of a searched prompt; further ones are ignored.
MAX_WORDS = 8


@dataclass(frozen=True, slots=True)
class ImageFilters:
    """Conditions that a listed image meets; None: any.

    Attributes:
        source: `synthetic` or `real`.
        review: What a person decided about it, or that nobody has.
        min_clip_score: Its least CLIP score, 0 .. 100; an image without a score does not match.
        max_clip_score: Its greatest CLIP score, likewise.
        prompt: Words that its prompt contains, in any order, whatever their case (of ASCII letters).
        model: Name of the model pack that generated it.
    """

    source: str | None = None
    review: ReviewState | None = None
    min_clip_score: float | None = None
    max_clip_score: float | None = None
    prompt: str | None = None
    model: str | None = None

    @property
    def of_lineage(self) -> ColumnElement[bool] | None:
        """The condition on how an image was made, which no index answers; None: any."""
        parts: list[ColumnElement[bool]] = []
        if self.model is not None:
            parts.append(Image.lineage["pack"].as_string() == self.model)
        words = (self.prompt or "").split()[:MAX_WORDS]
        parts.extend(Image.lineage["prompt"].as_string().icontains(word, autoescape=True) for word in words)
        return and_(*parts) if parts else None

    def applied(self, query: Select[Image]) -> Select[Image]:
        """Return the query with these conditions, but for `of_lineage`."""
        if self.source is not None:
            query = query.where(Image.source == self.source)
        if self.review is not None:
            query = query.where(Image.review == (None if self.review == "unreviewed" else self.review))
        if self.min_clip_score is not None:
            query = query.where(Image.clip_score >= self.min_clip_score)
        if self.max_clip_score is not None:
            query = query.where(Image.clip_score <= self.max_clip_score)
        return query


NO_FILTERS = ImageFilters()
