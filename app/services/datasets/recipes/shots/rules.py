"""What a request's `from_images` and strength must be, as far as the request alone tells.

Imports no database, storage or engine. Pure functions; any thread may call them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from app.error_codes import ErrorCode
from app.errors import FieldError
from app.schemas.datasets import MAX_SHOTS, DatasetCreate
from app.schemas.recipes import DEFAULT_SHOT_STRENGTH, StepsRange, StrengthRange
from app.step_rows import first_step

# Of all shots of a dataset: 256 of 512 x 512. Their PNG files have up to 200 MB, and are stored in one transaction.
MAX_SHOT_PIXELS = 2**26


def shots_of(request: DatasetCreate, base: str) -> Iterator[tuple[str, str]]:
    """Yield the pointer and the image's id of each shot of a request; `base` is the request's own pointer."""
    for index, entry in enumerate(request.classes):
        for number, image_id in enumerate(entry.from_images):
            yield f"{base}/classes/{index}/from_images/{number}", image_id


def shot_faults(request: DatasetCreate, settings: Mapping[str, Any], base: str) -> list[FieldError]:
    """Return the errors in a request's shots.

    Args:
        request: The request, after its preset was applied.
        settings: The settings of its images, resolved.
        base: JSON Pointer of the request in the body.
    """
    shots = list(shots_of(request, base))
    pointer = f"{base}/generation/strength"
    if not shots:
        if request.generation.strength is None:
            return []
        detail = "No class has from_images, so that strength has no meaning. Leave it out, or name shots."
        return [FieldError(pointer, detail, ErrorCode.INIT_IMAGE_MISSING)]
    most = min(MAX_SHOTS, MAX_SHOT_PIXELS // max(1, settings["width"] * settings["height"]))
    if len(shots) > most:
        detail = f"The classes have {len(shots)} shots together. At this size a dataset may have {most}."
        return [FieldError(f"{base}/classes", detail, ErrorCode.TOO_MANY_IMAGES)]
    counts: Counter[str] = Counter()
    faults = []
    for place, image_id in shots:
        counts[image_id] += 1
        if counts[image_id] > 1:
            detail = "This image is a shot already, of this class or of another one. Name each image once."
            faults.append(FieldError(place, detail, ErrorCode.DUPLICATE_SHOTS))
    return faults + _strength_faults(request, pointer)


def _strength_faults(request: DatasetCreate, pointer: str) -> list[FieldError]:
    steps, strength = request.generation.num_inference_steps, request.generation.strength
    least_steps = steps.min if isinstance(steps, StepsRange) else steps
    least = strength.min if isinstance(strength, StrengthRange) else strength or DEFAULT_SHOT_STRENGTH
    if first_step(least_steps, least) < least_steps:
        return []
    detail = f"{least_steps} steps x strength {least:g} is less than one step. Raise one of the two."
    return [FieldError(pointer, detail, ErrorCode.STRENGTH_TOO_LOW)]
