"""A dataset's recipe: it samples the settings of each image.

Every result is a pure function of the dataset's row, the slot and the attempt. So an image depends neither on its chunk
nor on the order of generation: generated again after a crash, or in another dataset of the same recipe, it is the same.
Imports no storage and no engine; reads the row of a dataset but opens no session. Any thread may use it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.db.models import Dataset
from app.image_spec import ImageSpec, PictureRef
from app.schemas.common import SPLITS
from app.services.datasets.recipes.clip_filter import ClipFilter
from app.services.datasets.recipes.seeds import drawn_index, image_seed
from app.services.datasets.recipes.templates import combination, parse_template

# Guidance is sampled in steps of 0.1, so that a person can type the value again.
GUIDANCE_STEPS = 10
# Strengths likewise, in steps of 0.05.
STRENGTH_STEPS = 20
# Values of the hash that orders shots.
_ORDERS = 2**20
ATTEMPTS, FILTER_ATTEMPTS = 3, 10


@dataclass(frozen=True, slots=True)
class Slot:
    """One image that a recipe asks for.

    Attributes:
        split: `train`, `validation` or `test`.
        class_index: Index of the class, >= 0.
        position: Index within the class and split, >= 0.
    """

    split: str
    class_index: int
    position: int


@dataclass(frozen=True, slots=True)
class Offsets:
    """The first position that a job fills in each class, by split; it leaves the slots before it unchanged."""

    train: int = 0
    test: int = 0
    validation: int = 0

    @classmethod
    def behind(cls, dataset: Dataset) -> "Offsets":
        """Return the offsets behind all slots that a dataset has now."""
        return cls(**{split: per_class(dataset, split) for split in SPLITS})

    def of(self, split: str) -> int:
        """Return the offset in a split."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[split]


NO_OFFSETS = Offsets()


@dataclass(frozen=True, slots=True)
class PriorAttempts:
    """The number of attempts that earlier jobs made at empty slots without keeping an image.

    A job continues there with the next attempt, because the earlier attempts would give the same images.

    Attributes:
        train: Positions below this one, in each class of `train`, were attempted.
        test: The same for `test`.
        attempts: Attempts made at each of them, >= 0.
        validation: As `train`, of the split `validation`.
    """

    train: int = 0
    test: int = 0
    attempts: int = 0
    validation: int = 0

    @classmethod
    def at_all(cls, dataset: Dataset, attempts: int) -> "PriorAttempts":
        """Return so many attempts at each slot that a dataset has now."""
        return cls(attempts=attempts, **{split: per_class(dataset, split) for split in SPLITS})

    def first_attempt(self, slot: Slot) -> int:
        """Return the number of the next attempt at a slot."""
        tried = {"train": self.train, "validation": self.validation, "test": self.test}
        return self.attempts if slot.position < tried[slot.split] else 0


@dataclass(frozen=True, slots=True)
class SampledSpec:
    """The sampled settings of one attempt at a slot.

    Attributes:
        spec: The image to generate.
        lineage: What was sampled, for the image's record: `template`, `variables`, `attempt`.
    """

    spec: ImageSpec
    lineage: dict[str, Any]


def per_class(dataset: Dataset, split: str) -> int:
    """Return the number of slots of each class of a dataset in a split, >= 0."""
    validation = dataset.validation_per_class or 0  # None in a new row that leaves the column to its default
    return {"train": dataset.train_per_class, "validation": validation, "test": dataset.test_per_class}[split]


def max_attempts(dataset: Dataset) -> int:
    """Return how often a job tries an image at most, >= 1; asks for no texts."""
    settled: dict[str, Any] = dataset.recipe or {}
    return int(settled.get("max_attempts", ATTEMPTS))


def strengths_of(generation: Mapping[str, Any]) -> list[float | None]:
    """Return the strengths that images with a shot draw from, each equally likely; [None] without one."""
    setting = generation.get("strength")
    if not isinstance(setting, Mapping):
        return [setting]
    first, last = (round(setting[end] * STRENGTH_STEPS) for end in ("min", "max"))
    return [number / STRENGTH_STEPS for number in range(first, last + 1)]


class Recipe:
    """The recipe of one dataset.

    Attributes:
        filter: Its CLIP filter.
        max_attempts: Images drawn for a slot until the filter keeps one, >= 1.
    """

    def __init__(self, dataset: Dataset) -> None:
        """Read the recipe of a dataset that was loaded with its texts.

        A dataset from before recipes existed has plain prompts and no ranges.
        """
        resolved: dict[str, Any] = dataset.recipe or {}
        self._dataset = dataset
        self._texts: list[dict[str, Any]] = dataset.texts.classes
        self._has_templates = dataset.recipe is not None
        self._variables: dict[str, list[str]] = dataset.texts.variables
        self._is_sampled = resolved.get("combine") == "sampled"
        self.filter = ClipFilter(dataset)
        self.max_attempts = max_attempts(dataset)

    def slot(self, number: int, offsets: Offsets = NO_OFFSETS) -> Slot:
        """Return a slot behind the offsets by its number: split by split as in `SPLITS`, class by class.

        Raises:
            IndexError: The recipe has fewer slots behind the offsets.
        """
        for split in SPLITS:
            width = per_class(self._dataset, split) - offsets.of(split)
            if number < len(self._dataset.classes) * width:
                return Slot(split, number // width, offsets.of(split) + number % width)
            number -= len(self._dataset.classes) * width
        raise IndexError("The recipe has fewer slots.")

    def seed(self, slot: Slot, attempt: int) -> int:
        """Return the seed of an attempt at a slot."""
        name = self._dataset.classes[slot.class_index]["name"]
        return image_seed(self._dataset.seed, name, slot.split, slot.position, attempt)

    def draw(self, slot: Slot, attempt: int) -> SampledSpec:
        """Sample the settings of an attempt at a slot.

        Prompts are used in turn. With `cartesian` the slot alone determines the combination of variables. With
        `sampled` each attempt samples another one, so that a combination that the model cannot render blocks no slot.

        Training images of a class with shots begin with one of them. Images of the other splits do not, so that no
        variant of a training image is in them.
        """
        entry, generation = self._texts[slot.class_index], self._dataset.generation
        prompts: Sequence[str] = entry["prompts"]
        template = prompts[slot.position % len(prompts)]
        prompt, variables = self._fill(template, slot, attempt)
        guidance, steps = generation["guidance_scale"], generation["num_inference_steps"]
        shot = self._draw_shot(entry.get("from_images", ()), slot, attempt)
        spec = ImageSpec(
            **{
                **generation,
                "prompt": prompt,
                "negative_prompt": entry["negative_prompt"],
                "seed": self.seed(slot, attempt),
                "guidance_scale": self._draw_guidance(guidance, slot, attempt),
                "num_inference_steps": self._draw_steps(steps, slot, attempt),
                "init_image": shot,
                "strength": None if shot is None else self._draw_strength(slot, attempt),
            }
        )
        return SampledSpec(spec, {"template": template, "variables": variables, "attempt": attempt})

    def _fill(self, text: str, slot: Slot, attempt: int) -> tuple[str, dict[str, str]]:
        if not self._has_templates:
            return text, {}
        template = parse_template(text)
        names = template.variables
        sizes = [len(self._variables[name]) for name in names]
        if self._is_sampled:
            indexes = [self._index(size, name, slot, attempt) for size, name in zip(sizes, names, strict=True)]
        else:
            num_prompts = len(self._texts[slot.class_index]["prompts"])
            indexes = list(combination(sizes, slot.position // num_prompts))
        values = {name: self._variables[name][index] for name, index in zip(names, indexes, strict=True)}
        return template.fill(values), values

    def _draw_guidance(self, setting: float | Mapping[str, float], slot: Slot, attempt: int) -> float:
        if not isinstance(setting, Mapping):
            return setting
        first, last = (round(setting[end] * GUIDANCE_STEPS) for end in ("min", "max"))
        drawn = first + self._index(last - first + 1, "#guidance_scale", slot, attempt)
        return drawn / GUIDANCE_STEPS

    def _draw_steps(self, setting: int | Mapping[str, int], slot: Slot, attempt: int) -> int:
        if not isinstance(setting, Mapping):
            return setting
        first, last = setting["min"], setting["max"]
        return first + self._index(last - first + 1, "#num_inference_steps", slot, attempt)

    def _draw_shot(self, shots: Sequence[Mapping[str, str]], slot: Slot, attempt: int) -> PictureRef | None:
        """Return the shot of an attempt: of n shots, each n slots use each one once, in an order of their own.

        A fixed order would join each shot with the same prompts and variables, which are used in turn too. Another
        attempt takes the next shot, so that one that the model cannot repaint blocks no slot.
        """
        if slot.split != "train" or not shots:
            return None
        turn, place = divmod(slot.position, len(shots))
        first = Slot(slot.split, slot.class_index, turn)
        order = sorted(range(len(shots)), key=lambda k: (self._index(_ORDERS, f"#shot {k}", first, 0), k))
        shot = shots[order[(place + attempt) % len(shots)]]
        return PictureRef(shot["sha256"], shot["image_id"])

    def _draw_strength(self, slot: Slot, attempt: int) -> float | None:
        strengths = strengths_of(self._dataset.generation)
        return strengths[self._index(len(strengths), "#strength", slot, attempt)]

    def _index(self, size: int, what: str, slot: Slot, attempt: int) -> int:
        name = self._dataset.classes[slot.class_index]["name"]
        return drawn_index(size, what, self._dataset.seed, name, slot.split, slot.position, attempt)
