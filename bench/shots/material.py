"""The pictures of the comparison: drawings as shots and as tests, and images that a recipe makes of the shots.

Drawings and shots are of different seeds than those of the pack's training; images are kept on disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from app.modelpacks.pack import demo_pack_folder, read_pack
from app.schemas.datasets import DatasetCreate
from app.services.datasets.recipes.recipe import Recipe
from app.services.datasets.recipes.vocabulary import make_recipe, vocabulary_of
from app.services.datasets.records import new_dataset
from app.services.images.spec import SizeRules
from app.storage.image_formats import pixels_sha256
from app.training.probe import Labels
from bench.from_prompts.drawing import Artist
from demo_pack.drawing import draw_scene, scene

STEPS = 10


@dataclass(frozen=True)
class Pictures:
    """Labelled pictures: N images (RGB) and (N,) classes, class by class."""

    images: list[Image.Image]
    labels: Labels


def drawings_of(seed: int, class_names: Sequence[str], per_class: int) -> Pictures:
    """Return the first `per_class` drawings of each class that a seed gives, in any style, colour and place."""
    found: dict[str, list[Image.Image]] = {name: [] for name in class_names}
    for index in itertools.count():
        rng = np.random.default_rng([seed, index])  # as in `demo_pack.drawing.draw`, without painting what is not used
        shown = scene(rng)
        if shown.class_name in found and len(found[shown.class_name]) < per_class:
            found[shown.class_name].append(draw_scene(shown, rng).image)
        if all(len(images) == per_class for images in found.values()):
            break
    images = [image for name in class_names for image in found[name]]
    return Pictures(images, np.repeat(np.arange(len(class_names)), per_class))


def make_images(
    artist: Artist, class_names: Sequence[str], shots: Pictures | None, *, strength: float, per_class: int, seed: int
) -> Pictures:
    """Make training images as a dataset job would; without shots, of the prompts alone."""
    ids = [f"shot-{number}" for number in range(len(shots.images))] if shots is not None else []
    hashes = {name: pixels_sha256(image) for name, image in zip(ids, shots.images if shots else [], strict=True)}
    pictures = {pixels_sha256(image): np.asarray(image) for image in (shots.images if shots else [])}
    each = len(ids) // len(class_names)
    chosen = [ids[index * each : (index + 1) * each] for index in range(len(class_names))]
    recipe = _recipe(class_names, chosen, hashes, strength=strength, per_class=per_class, seed=seed)
    slots = [recipe.slot(number) for number in range(len(class_names) * per_class)]
    images = artist.images([recipe.draw(slot, 0).spec for slot in slots], pictures)
    return Pictures(images, np.array([slot.class_index for slot in slots], np.int64))


def _recipe(
    class_names: Sequence[str],
    shots: Sequence[Sequence[str]],
    hashes: dict[str, str],
    *,
    strength: float,
    per_class: int,
    seed: int,
) -> Recipe:
    """Build the recipe: the pack's own words, sampled variables and guidance; no filter."""
    pack = read_pack(demo_pack_folder())
    prompts = make_recipe(class_names, vocabulary_of(pack.name))
    generation = {"guidance_scale": prompts.guidance.model_dump(), "num_inference_steps": STEPS}
    request = DatasetCreate.model_validate(
        {
            "name": "shots",
            "seed": seed,
            "train_per_class": per_class,
            "classes": [
                {"name": name, "prompts": texts, "from_images": ids}
                for name, texts, ids in zip(class_names, prompts.prompts, shots, strict=True)
            ],
            "variables": prompts.variables,
            "combine": "sampled",
            "generation": {**generation, "scheduler": "dpmpp_2m", "strength": strength if hashes else None},
        }
    )
    sizes = SizeRules(pack.native_size, pack.min_side, pack.max_side, pack.default_noise_scheduler)
    return Recipe(new_dataset(request, sizes, pack, job_id=None, shots=hashes))
