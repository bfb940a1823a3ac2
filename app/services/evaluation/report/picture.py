"""A chart as a list of shapes: what the SVG of the page and the PNG file are both drawn from.

Imports nothing of the service. Coordinates are pixels from the upper left corner. Pure; runs on any thread.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

# Roles instead of colours: the page has two sets of colours, light and dark.
Role = Literal["ink", "muted", "grid", "first", "second", "good", "bad"]
Anchor = Literal["start", "middle", "end"]
# The height of the font, pixels.
TEXT_SIZE = 12


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    role: Role
    opacity: float = 1.0
    kind: Literal["box"] = field(default="box", init=False)


@dataclass(frozen=True, slots=True)
class Path:
    """A line through points, or a dashed one."""

    points: Sequence[tuple[float, float]]
    role: Role
    thickness: float = 1.0
    kind: Literal["path"] = field(default="path", init=False)


@dataclass(frozen=True, slots=True)
class Dot:
    """A filled circle."""

    x: float
    y: float
    radius: float
    role: Role
    kind: Literal["dot"] = field(default="dot", init=False)


@dataclass(frozen=True, slots=True)
class Label:
    """One line of text; `y` is its middle. A vertical one reads upward, and `x` is its middle."""

    x: float
    y: float
    text: str
    anchor: Anchor = "start"
    role: Role = "ink"
    is_vertical: bool = False
    kind: Literal["label"] = field(default="label", init=False)


Shape = Box | Path | Dot | Label


@dataclass(frozen=True, slots=True)
class Picture:
    """A chart.

    Attributes:
        title: Its heading on the page.
        caption: What it shows, of which images, and what was left out.
        width: Pixels.
        height: Pixels.
        shapes: From back to front.
    """

    title: str
    caption: str
    width: int
    height: int
    shapes: Sequence[Shape]


def fitted(text: str, max_columns: int) -> str:
    """Return a text for a chart or a page: one line without control and bidirectional formatting characters, shortened.

    Args:
        text: Any text.
        max_columns: The most columns, >= 2; an East Asian wide character takes two, a combining one none.
    """
    kept = "".join(" " if char.isspace() else char for char in text if char.isspace() or _is_drawn(char))
    line = " ".join(kept.split()) or "(no visible name)"
    if num_columns(line) <= max_columns:
        return line
    width, end = 0, 0
    for end, char in enumerate(line):  # noqa: B007 - `end` is where the loop stopped
        width += _columns(char)
        if width > max_columns - 1:
            break
    return f"{line[:end].rstrip()}…"


def num_columns(text: str) -> int:
    """Return the columns that a text takes, see `fitted`."""
    return sum(map(_columns, text))


def _is_drawn(char: str) -> bool:
    return not unicodedata.category(char).startswith("C")


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
