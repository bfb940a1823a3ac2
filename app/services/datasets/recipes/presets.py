"""Presets: named recipe settings that fill the fields a request leaves out.

`from_prompts` does the same in the words of the loaded pack (`vocabulary.py`, docs/decisions/0046).

`diverse` uses the settings that improved classifiers trained on synthetic images and tested on real ones:

- guidance sampled from 1 ... 5 for each image, as in Shipard et al. 2023 (arXiv 2302.03298) with SD 1.4; Fan et al.
  2024 (2312.04567) used 2.0, He et al. 2023 (2210.07574) 3.0. The common 7.5 favours appearance over variety.
- a style before each prompt and a background after it, sampled for each image: "multi-domain" prompts (Shipard et al.),
  class names in random places (Sariyildiz et al. 2023, 2212.08420). The lists of styles and backgrounds are our choice:
  common words, including all that the demo pack was trained on.
- the CLIP filter at 1 / classes (He et al.): variety and low guidance give more images that do not show their class.

Imports no database, storage or engine. Pure functions; any thread may call them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from app.schemas.datasets import DatasetClass, DatasetCreate
from app.schemas.recipes import ClipFilter
from app.services.datasets.recipes.templates import BadTemplate, parse_template
from app.services.datasets.recipes.vocabulary import GUIDANCE, make_recipe, vocabulary_of

STYLES = [
    "a photo of",
    "a watercolor painting of",
    "an oil painting of",
    "a pencil sketch of",
    "a flat illustration of",
]
BACKGROUNDS = [
    "",
    "on a plain background",
    "on the grass",
    "in the snow",
    "under a blue sky",
    "at night",
    "on the beach",
    "in a forest",
    "in a street",
    "indoors",
]
VARIABLES = {"style": STYLES, "background": BACKGROUNDS}


def with_preset(request: DatasetCreate, *, pack: str) -> DatasetCreate:
    """Return the request with its preset's values in the fields that it leaves out; unchanged without a preset.

    A prompt that uses none of the preset's variables is surrounded by style and background; a list in the request
    replaces the preset's list of that name.

    Args:
        request: The request.
        pack: The name of the pack that will draw.
    """
    if request.preset is None:
        return request
    given = request.model_fields_set
    classes, variables = request.classes, VARIABLES
    if request.preset == "from_prompts":
        recipe = make_recipe([entry.name for entry in request.classes], vocabulary_of(pack))
        classes = [
            entry if entry.prompts else entry.model_copy(update={"prompts": list(prompts)})
            for entry, prompts in zip(request.classes, recipe.prompts, strict=True)
        ]
        variables = recipe.variables
    classes = [_varied(entry, variables) for entry in classes]
    changes: dict[str, Any] = {"classes": classes, "variables": {**_used(classes, variables), **request.variables}}
    is_guided = request.generation.speed != "fast"  # whose weights have their guidance inside
    if is_guided and "guidance_scale" not in request.generation.model_fields_set:
        changes["generation"] = request.generation.model_copy(update={"guidance_scale": GUIDANCE})
    if "combine" not in given:
        changes["combine"] = "sampled"
    if "filter" not in given:
        changes["filter"] = ClipFilter(threshold=None)
    return request.model_copy(update=changes)


def _used(classes: Sequence[DatasetClass], variables: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the preset's lists that a prompt uses; a recipe with an unused list would be refused if sent again."""
    prompts = [prompt for entry in classes for prompt in entry.prompts]
    return {name: values for name, values in variables.items() if any(f"{{{name}}}" in prompt for prompt in prompts)}


def _varied(entry: DatasetClass, variables: Mapping[str, list[str]]) -> DatasetClass:
    return entry.model_copy(update={"prompts": [_vary(prompt, variables) for prompt in entry.prompts]})


def _vary(prompt: str, variables: Mapping[str, list[str]]) -> str:
    try:
        used = parse_template(prompt).variables
    except BadTemplate:  # refused later, by the validation
        return prompt
    return prompt if variables.keys() & set(used) else f"{{style}} {prompt} {{background}}"
