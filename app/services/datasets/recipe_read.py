"""A dataset's recipe as its clients see it: settled, and in the form that `POST /datasets` takes.

Needs a dataset that was read with its texts, which may have megabytes: lists are made by `dataset_records`.
"""

from collections.abc import Mapping
from typing import Any

from app.db.models import Dataset
from app.schemas.datasets import DatasetRecipeRead, RecipeClassRead
from app.services.datasets.records import settings_of


def recipe_classes(dataset: Dataset) -> list[RecipeClassRead]:
    """Return the classes of a dataset with their texts, as settled."""
    return [
        RecipeClassRead(name=entry["name"], label=entry.get("label") or entry["name"], **texts)
        for entry, texts in zip(dataset.classes, dataset.texts.classes, strict=True)
    ]


def recipe_read(dataset: Dataset) -> DatasetRecipeRead:
    """Return the body of `POST /datasets` that gives the same images.

    A preset is not named in it: it has the preset's values, and those of a later release may differ.
    """
    classes = recipe_classes(dataset)
    if dataset.recipe is None:  # from before there were recipes: braces are plain text
        for entry in classes:
            entry.prompts = [prompt.replace("{", "{{").replace("}", "}}") for prompt in entry.prompts]
    variables: Mapping[str, Any] = dataset.texts.variables
    return DatasetRecipeRead(**settings_of(dataset), name=dataset.name, classes=classes, variables=dict(variables))
