"""The limits of the running node as plain values, at most as large as those in the OpenAPI file.

`app/config.py` sets them. Limits that no setting changes are where requests are read: `app/schemas/uploads.py` (files
of an upload), `app/api/parsing/forms.py` (bytes of a form) and `app/api/parsing/json_bodies.py` (bytes of a JSON body).
Imports no service, database or engine. Immutable; any thread may read it.
"""

from dataclasses import dataclass

from app.errors import FieldError, Invalid
from app.image_spec import MAX_PROMPT_CHARS
from app.schemas.datasets import MAX_RECIPE_BYTES


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest values that one request may have."""

    prompt_chars: int = MAX_PROMPT_CHARS
    num_inference_steps: int = 150
    num_images_per_prompt: int = 16
    # images x steps x width x height of one request; 2e9 is 16 images of 512x512 in 476 steps.
    work_pixel_steps: int = 2_000_000_000
    dataset_images: int = 100_000
    recipe_bytes: int = MAX_RECIPE_BYTES
    upload_bytes: int = 20_000_000
    upload_pixels: int = 40_000_000
    queue_size: int = 64
    # Background jobs that wait or are paused, in the whole database.
    queued_jobs: int = 10_000


def raise_if_invalid(faults: list[FieldError]) -> None:
    """Raise one `Invalid` with all faults; return if there are none.

    Raises:
        Invalid: There are faults; with exactly one, its detail and code are those of the error.
    """
    if len(faults) == 1:
        raise Invalid(faults[0].detail, code=faults[0].code, errors=faults)
    if faults:
        raise Invalid(f"{len(faults)} values are invalid.", errors=faults)
