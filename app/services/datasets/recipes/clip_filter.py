"""The CLIP filter of a dataset: the texts that its images are compared with, and which images it keeps.

Pure; imports no storage and no engine, and reads the row of a dataset but opens no session. Any thread may use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.db.models import Dataset

# Of many classes, only the image's own class and those with the highest scores are recorded: 20 are about 1 kB a row.
MAX_SCORES = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """The filter's decision on an image: `kept` or `rejected`, with the reason; None without a filter."""

    decision: str
    reason: str | None


def clip_texts(dataset: Dataset) -> list[str]:
    """Return the text of each class that CLIP compares an image with.

    The words are those of OpenAI's zero-shot classification. They are the same for every class, so what they add to an
    image's similarity they add for all classes.
    """
    return [f"a photo of a {entry.get('label') or entry['name']}" for entry in dataset.classes]


class ClipFilter:
    """The filter of one dataset; a dataset without one keeps every image.

    Attributes:
        texts: The text of each class that CLIP compares an image with; see `clip_texts`.
    """

    def __init__(self, dataset: Dataset) -> None:
        """Read the filter of a dataset; datasets from before recipes existed have none."""
        self.texts = clip_texts(dataset)
        self._names = [entry["name"] for entry in dataset.classes]
        settings = (dataset.recipe or {}).get("filter")
        self._threshold: float | None = None if settings is None else settings["threshold"]

    def apply(self, class_index: int, probabilities: Sequence[float] | None) -> Verdict:
        """Return whether the filter keeps an image of a class.

        Args:
            class_index: Of the image, >= 0.
            probabilities: (C,), CLIP's probability of each class, in the dataset's order; None: not measured.
        """
        if self._threshold is None or probabilities is None:
            return Verdict("kept", None)
        own = probabilities[class_index]
        is_kept = own >= self._threshold
        reason = f"p(own class) {own:.4f} {'>=' if is_kept else '<'} {self._threshold:.4f}"
        return Verdict("kept" if is_kept else "rejected", reason)

    def scores(self, class_index: int, probabilities: Sequence[float]) -> list[dict[str, Any]]:
        """Return the scores to record, in the order of the classes: the own class and the highest of the others."""
        by_height = sorted(range(len(probabilities)), key=lambda i: (i != class_index, -probabilities[i], i))
        return [{"label": self._names[i], "probability": probabilities[i]} for i in sorted(by_height[:MAX_SCORES])]
