"""A labelled set in which every second label is wrong, drawn by recipes of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from app.modelpacks.pack import demo_pack_folder, read_pack
from app.schemas.datasets import DatasetCreate
from app.services.datasets.recipes.recipe import Recipe, Slot
from app.services.datasets.records import new_dataset
from app.services.images.spec import SizeRules
from bench.demo_pack.generation import Settings, Studio, Wish

CLASSES = ("fox", "dog", "cat", "rabbit", "bird", "elephant")
SEED = 11
NOISE_SCHEDULER = "dpmpp_2m"
# Watercolors as in the practical; and what the `diverse` preset tries, at the middle of the range of guidance that it
# draws from, since pictures of one guidance can be drawn in batches. Of the latter some are not what was asked for.
RECIPES: dict[str, dict[str, Any]] = {
    "watercolor": {
        "generation": {"guidance_scale": 7.5},
        "classes": [{"name": name, "prompts": [f"a watercolor painting of a {name}"]} for name in CLASSES],
    },
    "diverse": {
        "generation": {"guidance_scale": 3.0},
        "classes": [{"name": name, "prompts": [f"a {name}"]} for name in CLASSES],
        "preset": "diverse",
    },
}


@dataclass(frozen=True)
class Planted:
    """The set.

    Attributes:
        recipe: Has the rule of the filter.
        labels: What each picture is said to be, as a place of a dataset.
        is_planted: Whether that is wrong.
    """

    recipe: Recipe
    images: list[Image.Image]
    labels: list[Slot]
    is_planted: list[bool]


def plant(studio: Studio, name: str, *, per_class: int, steps: int) -> Planted:
    """Draw `per_class` pictures of each class and give every second one the label of another class, each in turn."""
    fields = {"filter": {}, **RECIPES[name], "name": name, "seed": SEED, "train_per_class": per_class}
    pack = read_pack(demo_pack_folder())
    sizes = SizeRules(pack.native_size, pack.min_side, pack.max_side, pack.default_noise_scheduler)
    recipe = Recipe(new_dataset(DatasetCreate.model_validate(fields), sizes, pack, job_id=None))
    places = [recipe.slot(number) for number in range(len(CLASSES) * per_class)]
    specs = [recipe.draw(place, 0).spec for place in places]
    settings = Settings(steps, specs[0].guidance_scale, NOISE_SCHEDULER, specs[0].height, specs[0].width)
    images = studio.images(name, [Wish(spec.prompt, spec.seed) for spec in specs], settings)
    labels = [_label(place) for place in places]
    is_planted = [label != place for label, place in zip(labels, places, strict=True)]
    return Planted(recipe, images, labels, is_planted)


def _label(place: Slot) -> Slot:
    if place.position % 2 == 0:
        return place
    others = len(CLASSES) - 1
    wrong = (place.class_index + 1 + place.position // 2 % others) % len(CLASSES)
    return Slot(place.split, wrong, place.position)
