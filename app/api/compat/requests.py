"""What the surfaces share about requests: lenient bodies, names of fields in errors, sizes and noise schedulers.

Imports no services and no routes; pure functions.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from app.api.compat.notes import Notes
from app.errors import AppError, FieldError
from app.image_spec import SAMPLER_NAMES, SIDE_MULTIPLE, NoiseSchedulerName

# Diffusers' classes, as clients of Hugging Face name them.
_CLASSES: Mapping[str, NoiseSchedulerName] = {
    "pndmscheduler": "pndm",
    "ddimscheduler": "ddim",
    "eulerdiscretescheduler": "euler",
    "eulerancestraldiscretescheduler": "euler_a",
    "dpmsolvermultistepscheduler": "dpmpp_2m",
    "unipcmultistepscheduler": "unipc",
    "lcmscheduler": "lcm",
    "tcdscheduler": "tcd",
}


class Lenient(BaseModel):
    """Base of the bodies of these surfaces: unknown fields are ignored, because clients send dozens."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False, hide_input_in_errors=True, protected_namespaces=())


@dataclass(frozen=True, slots=True)
class SizeRange:
    """The sides that the loaded model draws, in pixels."""

    native: int
    min_side: int
    max_side: int

    def nearest(self, width: int, height: int) -> tuple[int, int]:
        """Return the nearest size that the model draws: scaled in proportion, then each side within the range."""
        factor = min(1.0, self.max_side / max(width, height))
        factor = max(factor, self.min_side / min(width, height))
        return self._side(width * factor), self._side(height * factor)

    def _side(self, pixels: float) -> int:
        side = round(pixels / SIDE_MULTIPLE) * SIDE_MULTIPLE
        return min(max(side, self.min_side), self.max_side)


def drawn_size(sides: SizeRange, width: int | None, height: int | None, notes: Notes) -> tuple[int, int]:
    """Return the size that is drawn for the size that was asked for, with a note where the two differ.

    Args:
        sides: Of the loaded model.
        width: Pixels, >= 1; None: the model's own.
        height: As the width.
        notes: Gets a note.
    """
    wanted = width or sides.native, height or sides.native
    drawn = sides.nearest(*wanted)
    if drawn != wanted:
        limits = f"sides from {sides.min_side} to {sides.max_side} pixels in steps of {SIDE_MULTIPLE}"
        notes.add("size_mapped", f"The size is {drawn[0]}x{drawn[1]}: the loaded model draws {limits}.")
    return drawn


def noise_scheduler(name: str | None, notes: Notes) -> NoiseSchedulerName | None:
    """Return our noise scheduler of a name of ours, of the web UI or of diffusers; None: the loaded model's own.

    Case, spaces and signs do not count. A name that is not known gets a note.
    """
    if not name:
        return None
    found = _SCHEDULERS.get(_plain(name))
    if found is None:
        notes.add("scheduler_not_used", "This node has no such noise scheduler. It used the loaded model's own.")
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9+]", "", name.lower())


_SCHEDULERS: Mapping[str, NoiseSchedulerName] = {
    **_CLASSES,
    **{_plain(name): name for name in SAMPLER_NAMES},
    **{_plain(theirs): ours for ours, theirs in SAMPLER_NAMES.items()},
}


@contextmanager
def naming(names: Mapping[str, str]) -> Iterator[None]:
    """Give the faults of an error in this block the client's names of fields.

    Args:
        names: Theirs by ours, without `#/`; of fields that have the same name there is no entry.
    """
    try:
        yield
    except AppError as error:
        error.errors = tuple(_renamed(fault, names) for fault in error.errors)
        raise


def _renamed(fault: FieldError, names: Mapping[str, str]) -> FieldError:
    ours, slash, rest = fault.pointer.removeprefix("#/").partition("/")
    name = names.get(ours)
    return fault if name is None else FieldError(f"#/{name}{slash}{rest}", fault.detail, fault.code)
