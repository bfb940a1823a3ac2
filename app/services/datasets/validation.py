"""Validation of a dataset's request beyond its schema; each error has its JSON Pointer in the body.

Imports no database, storage or engine. Pure functions; they take seconds for large recipes, so never on the event loop.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.error_codes import ErrorCode
from app.errors import FieldError
from app.image_spec import MAX_PROMPT_CHARS
from app.names import equal_names, is_like_an_id
from app.schemas.datasets import DatasetCreate
from app.schemas.recipes import MAX_COMBINATIONS
from app.services.datasets.recipes.presets import with_preset
from app.services.datasets.recipes.shots.rules import shot_faults
from app.services.datasets.recipes.templates import BadTemplate, Extent, Template, extent_of, parse_template
from app.services.images.spec import SizeRules, mask_faults, prompt_length_faults, resolve_settings, settings_faults
from app.services.limits import Limits

MAX_PAIRS_NAMED = 5


@dataclass(frozen=True, slots=True)
class _Variable:
    """The properties of a variable's values that the checks use; measured once, however many prompts use it."""

    num_values: int
    longest: Extent
    may_be_empty: bool


def dataset_faults(
    request: DatasetCreate, sizes: SizeRules, limits: Limits, *, pack: str = "", base: str = "#"
) -> list[FieldError]:
    """Return the errors in a dataset's request.

    Args:
        request: The request as received, before its preset is applied.
        sizes: The loaded model's sizes.
        limits: The node's limits.
        pack: The name of the pack that will draw; "": one without a vocabulary of its own.
        base: JSON Pointer of the request in the body.
    """
    if recipe_bytes(request) > limits.recipe_bytes:  # before the checks whose time grows with each prompt
        return [_too_large(limits, base)]
    resolved = with_preset(request, pack=pack)
    if resolved is not request and recipe_bytes(resolved) > limits.recipe_bytes:
        return [_too_large(limits, base)]
    settings = resolve_settings(resolved.generation, sizes)
    faults = settings_faults(settings, sizes, limits, base=f"{base}/generation")
    faults += mask_faults(settings.get("model"), sizes, f"{base}/generation/model")
    faults += shot_faults(resolved, settings, base)
    faults += _name_faults(resolved, base) + _class_faults(resolved, base) + _count_faults(resolved, limits, base)
    return faults + _template_faults(resolved, request, limits, base)


def recipe_bytes(request: DatasetCreate) -> int:
    """Return the size of a request's classes and variables: bytes of compact JSON in UTF-8, without defaults.

    A recipe with resolved labels has the same size as its request, so that it can be sent again.
    """
    classes = [
        entry.model_copy(update={"label": None}) if entry.label == entry.name else entry for entry in request.classes
    ]
    counted = request.model_copy(update={"classes": classes})
    return len(counted.model_dump_json(include={"classes", "variables"}, exclude_defaults=True).encode())


def _too_large(limits: Limits, base: str) -> FieldError:
    detail = (
        f"The classes and variables of a recipe may have {limits.recipe_bytes} bytes of JSON in all, "
        "including what a preset adds. Create several datasets, or use fewer or shorter prompts."
    )
    return FieldError(base, detail, ErrorCode.RECIPE_TOO_LARGE)


def _name_faults(request: DatasetCreate, base: str) -> list[FieldError]:
    if not is_like_an_id(request.name):
        return []
    detail = "The name has the form of an id. Choose another name."
    return [FieldError(f"{base}/name", detail, ErrorCode.BAD_DATASET_NAME)]


def _class_faults(request: DatasetCreate, base: str) -> list[FieldError]:
    detail = "A class needs at least one prompt, unless the preset from_prompts writes them."
    faults = [
        FieldError(f"{base}/classes/{index}/prompts", detail, ErrorCode.TOO_FEW)
        for index, entry in enumerate(request.classes)
        if not entry.prompts
    ]
    if equal := equal_names([entry.name for entry in request.classes]):
        pairs = ", ".join(f"{group[0]} and {group[1]}" for group in equal[:MAX_PAIRS_NAMED])
        detail = (
            "Names must differ by more than letter case, Unicode form, spaces and invisible characters. "
            f"The classes at {pairs} (counted from 0) are equal."
        )
        faults.append(FieldError(f"{base}/classes", detail, ErrorCode.DUPLICATE_CLASSES))
    if request.filter is None:
        return faults
    detail = "With the filter, each class needs its own label."
    return faults + [
        FieldError(f"{base}/classes/{i}/label", detail, ErrorCode.DUPLICATE_LABELS)
        for group in equal_names([entry.label or entry.name for entry in request.classes])
        for i in group
        if request.classes[i].label is not None
    ]


def _count_faults(request: DatasetCreate, limits: Limits, base: str) -> list[FieldError]:
    per_class = request.train_per_class + request.validation_per_class + request.test_per_class
    total = len(request.classes) * per_class
    if total > limits.dataset_images:
        detail = f"The dataset would have {total} images. At most {limits.dataset_images} are accepted."
        return [FieldError(f"{base}/classes", detail, ErrorCode.TOO_MANY_IMAGES)]
    return []


def _template_faults(resolved: DatasetCreate, request: DatasetCreate, limits: Limits, base: str) -> list[FieldError]:
    faults: list[FieldError] = []
    used: set[str] = set()
    variables = {name: _measured(values) for name, values in resolved.variables.items()}
    for pointer, text in _prompts(resolved, base):
        try:
            template = parse_template(text)
        except BadTemplate:
            detail = "A brace stands alone. Write a variable as {name}, a literal brace as {{ or }}."
            faults.append(FieldError(pointer, detail, ErrorCode.BAD_TEMPLATE))
            continue
        used.update(template.variables)
        faults += _filled_faults(template, variables, limits, pointer)
    # An unused list is a mistake: it would silently give no variety.
    unused = [name for name in request.variables if name not in used]
    return faults + [
        FieldError(
            f"{base}/variables/{name}",
            "No prompt uses this variable. Remove it, or use it in a prompt.",
            ErrorCode.UNUSED_VARIABLE,
        )
        for name in unused
    ]


def _measured(values: Sequence[str]) -> _Variable:
    extents = [extent_of(value) for value in values]
    return _Variable(len(values), max(extents), any(extent.num_chars == 0 for extent in extents))


def _prompts(request: DatasetCreate, base: str) -> Iterator[tuple[str, str]]:
    for i, entry in enumerate(request.classes):
        for j, prompt in enumerate(entry.prompts):
            yield f"{base}/classes/{i}/prompts/{j}", prompt


def _filled_faults(
    template: Template, variables: dict[str, _Variable], limits: Limits, pointer: str
) -> list[FieldError]:
    """Return the errors in the texts that a template may produce, without producing any of them."""
    names = template.variables
    if not variables.keys() >= set(names):
        detail = "The prompt uses a variable that `variables` does not have. Write a literal brace as {{ or }}."
        return [FieldError(pointer, detail, ErrorCode.UNKNOWN_VARIABLE)]
    if math.prod(variables[name].num_values for name in names) > MAX_COMBINATIONS:
        detail = f"The variables of this prompt have more than {MAX_COMBINATIONS} combinations. Use fewer values."
        return [FieldError(pointer, detail, ErrorCode.TOO_MANY_COMBINATIONS)]
    if all(variables[name].may_be_empty for name in names) and not any(map(str.strip, template.literals)):
        return [FieldError(pointer, "The variables of this prompt may leave it empty.", ErrorCode.PROMPT_MAY_BE_EMPTY)]
    longest = template.filled_length({name: variables[name].longest for name in names})
    if longest > MAX_PROMPT_CHARS:
        detail = f"With its longest values the prompt has more than {MAX_PROMPT_CHARS} characters."
        return [FieldError(pointer, detail, ErrorCode.PROMPT_TOO_LONG)]
    return prompt_length_faults([(pointer, longest)], limits)
