"""How each image of a dataset is drawn and judged: pure functions of the dataset's row, the place and the attempt.

So an image does not depend on the chunk it is made in, on the order, or on what was made before: made again after a
crash, or in another dataset of the same recipe, it is the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.db.models import Dataset
from app.image_spec import ImageSpec
from app.services.datasets.seeds import drawn_index, image_seed
from app.services.datasets.templates import combination, parse_template

# Guidance is drawn in steps of 0.1: values that a person can type again.
GUIDANCE_STEPS = 10
# Of the scores of many classes, the own class's and the highest are kept: 20 are about a kilobyte a row.
MAX_SCORES = 20
ATTEMPTS, FILTER_ATTEMPTS = 3, 10


@dataclass(frozen=True, slots=True)
class Place:
    """Where an image stands in its dataset."""

    split: str
    class_index: int
    position: int


@dataclass(frozen=True, slots=True)
class Made:
    """How many places of each class and split, from the first on, a job leaves alone: it fills those behind them."""

    train: int = 0
    test: int = 0


NOTHING_MADE = Made()


@dataclass(frozen=True, slots=True)
class Tried:
    """How often the empty ones of the first places of each class and split were tried before, in vain.

    A job goes on with the next attempt there: the earlier ones would give the same images.
    """

    train: int = 0
    test: int = 0
    attempts: int = 0

    def first_attempt(self, place: Place) -> int:
        """Return the number of the next attempt at a place."""
        return self.attempts if place.position < (self.train if place.split == "train" else self.test) else 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one attempt at a place is made from.

    Attributes:
        spec: The image to make.
        lineage: What was drawn for it, for its record: template, variables, attempt.
    """

    spec: ImageSpec
    lineage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the filter says of an image: `kept` or `rejected`, and why; no reason without a filter."""

    decision: str
    reason: str | None


def clip_texts(dataset: Dataset) -> list[str]:
    """Return what CLIP compares an image with, a text for each class."""
    return [f"a photo of a {entry.get('label') or entry['name']}" for entry in dataset.classes]


class Recipe:
    """The recipe of one dataset."""

    def __init__(self, dataset: Dataset) -> None:
        """Read a dataset that has its texts; one older than recipes has plain prompts and no ranges."""
        settled: dict[str, Any] = dataset.recipe or {}
        self._dataset = dataset
        self._texts: list[dict[str, Any]] = dataset.texts.classes
        self._has_templates = dataset.recipe is not None
        self._variables: dict[str, list[str]] = dataset.texts.variables
        self._is_sampled = settled.get("combine") == "sampled"
        self._filter: dict[str, Any] | None = settled.get("filter")
        self.max_attempts: int = settled.get("max_attempts", ATTEMPTS)

    @property
    def texts(self) -> list[str]:
        """What CLIP compares an image with, one text a class.

        The words of OpenAI's zero-shot classification, the same around every class: what they add to an image's
        likeness, they add for all classes.
        """
        return clip_texts(self._dataset)

    def place(self, number: int, made: Made = NOTHING_MADE) -> Place:
        """Return the place of this number behind what is made: all of train, then test, class by class."""
        dataset = self._dataset
        width = dataset.train_per_class - made.train
        num_train = len(dataset.classes) * width
        if number < num_train:
            return Place("train", number // width, made.train + number % width)
        number, width = number - num_train, dataset.test_per_class - made.test
        return Place("test", number // width, made.test + number % width)

    def seed(self, place: Place, attempt: int) -> int:
        """Return the seed of an attempt at a place."""
        name = self._dataset.classes[place.class_index]["name"]
        return image_seed(self._dataset.seed, name, place.split, place.position, attempt)

    def draw(self, place: Place, attempt: int) -> Drawn:
        """Return what an attempt at a place is made from.

        Prompts are taken in turn. With `cartesian` the place alone decides the combination of variables; with
        `sampled` each attempt draws anew, so that a combination that the model cannot draw blocks no place.
        """
        entry, generation = self._texts[place.class_index], self._dataset.generation
        prompts: Sequence[str] = entry["prompts"]
        template = prompts[place.position % len(prompts)]
        prompt, variables = self._fill(template, place, attempt)
        guidance, steps = generation["guidance_scale"], generation["num_inference_steps"]
        spec = ImageSpec(
            **{
                **generation,
                "prompt": prompt,
                "negative_prompt": entry["negative_prompt"],
                "seed": self.seed(place, attempt),
                "guidance_scale": self._draw_guidance(guidance, place, attempt),
                "num_inference_steps": self._draw_steps(steps, place, attempt),
            }
        )
        return Drawn(spec, {"template": template, "variables": variables, "attempt": attempt})

    def judge(self, place: Place, probabilities: Sequence[float] | None) -> Verdict:
        """Decide about an image from CLIP's probabilities of all classes, in their order."""
        if self._filter is None or probabilities is None:
            return Verdict("kept", None)
        own, threshold = probabilities[place.class_index], self._filter["threshold"]
        is_kept = own >= threshold
        reason = f"p(own class) {own:.4f} {'>=' if is_kept else '<'} {threshold:.4f}"
        return Verdict("kept" if is_kept else "rejected", reason)

    def scores(self, place: Place, probabilities: Sequence[float]) -> list[dict[str, Any]]:
        """Return the scores to record, in the classes' order: the own class's and the highest of the others."""
        by_height = sorted(range(len(probabilities)), key=lambda i: (i != place.class_index, -probabilities[i], i))
        names = [entry["name"] for entry in self._dataset.classes]
        return [{"label": names[i], "probability": probabilities[i]} for i in sorted(by_height[:MAX_SCORES])]

    def _fill(self, text: str, place: Place, attempt: int) -> tuple[str, dict[str, str]]:
        if not self._has_templates:
            return text, {}
        template = parse_template(text)
        names = template.variables
        sizes = [len(self._variables[name]) for name in names]
        if self._is_sampled:
            indexes = [self._index(size, name, place, attempt) for size, name in zip(sizes, names, strict=True)]
        else:
            num_prompts = len(self._texts[place.class_index]["prompts"])
            indexes = list(combination(sizes, place.position // num_prompts))
        values = {name: self._variables[name][index] for name, index in zip(names, indexes, strict=True)}
        return template.fill(values), values

    def _draw_guidance(self, setting: float | Mapping[str, float], place: Place, attempt: int) -> float:
        if not isinstance(setting, Mapping):
            return setting
        first, last = (round(setting[end] * GUIDANCE_STEPS) for end in ("min", "max"))
        drawn = first + self._index(last - first + 1, "#guidance_scale", place, attempt)
        return drawn / GUIDANCE_STEPS

    def _draw_steps(self, setting: int | Mapping[str, int], place: Place, attempt: int) -> int:
        if not isinstance(setting, Mapping):
            return setting
        first, last = setting["min"], setting["max"]
        return first + self._index(last - first + 1, "#num_inference_steps", place, attempt)

    def _index(self, size: int, what: str, place: Place, attempt: int) -> int:
        name = self._dataset.classes[place.class_index]["name"]
        return drawn_index(size, what, self._dataset.seed, name, place.split, place.position, attempt)
