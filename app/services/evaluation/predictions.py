"""What a model predicted for each image of an evaluation, in a form that is stored and compared later.

Imports no database models and no HTTP framework. Runs on the thread of its caller.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from app.schemas.common import ImageSource
from app.services.evaluation.compare import ImagePrediction


@dataclass(frozen=True, slots=True)
class StoredPredictions:
    """The predictions of one evaluation, column by column: about 60 bytes of JSON for each image.

    Attributes:
        classes: The names that the labels point into.
        image_ids: (N,).
        is_real: (N,), 1 for uploaded images, 0 for generated ones.
        labels: (N,), the true classes.
        predicted: (N,), the most probable classes.
        confidence: (N,), the probability of `predicted`, rounded to four digits.
        groups: (N,), equal numbers for generated images of one prompt and seed; empty if each is its own group.
    """

    classes: list[str]
    image_ids: list[str]
    is_real: list[int]
    labels: list[int]
    predicted: list[int]
    confidence: list[float]
    groups: list[int]

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "StoredPredictions":
        """Read what `to_json` returned."""
        return cls(**{each.name: stored[each.name] for each in fields(cls)})

    def to_json(self) -> dict[str, Any]:
        """Return the predictions as JSON."""
        return asdict(self)

    def by_image(self) -> Sequence[ImagePrediction]:
        """Return one row for each image, for `compare_models`."""
        sources: tuple[ImageSource, ImageSource] = ("synthetic", "real")
        groups = [str(group) for group in self.groups] or [""] * len(self.image_ids)
        columns = zip(self.image_ids, self.is_real, self.labels, self.predicted, groups, strict=True)
        return [
            ImagePrediction(image_id, sources[is_real], self.classes[label], self.classes[predicted], group)
            for image_id, is_real, label, predicted, group in columns
        ]
