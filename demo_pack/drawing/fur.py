"""Common parts of the furred animals: the square of a head, the colours of a coat, and the eyes.

Imports no particular animals, poses or styles.
"""

from __future__ import annotations

from dataclasses import dataclass

from demo_pack.drawing.canvas import Canvas, Colour, Points, lighter
from demo_pack.drawing.palette import INK, WHITE


@dataclass(frozen=True)
class Fur:
    """The colours of one animal."""

    main: Colour
    light: Colour
    dark: Colour

    @property
    def is_dark(self) -> bool:
        """Whether the fur is too dark for lines of ink."""
        return sum(self.main) < 300


@dataclass(frozen=True)
class Animal:
    """One animal: its class, coat, age and ears ("floppy", "long", "folded" or "retriever" for dogs)."""

    class_name: str
    fur: Fur
    young: bool
    breed: str


@dataclass(frozen=True)
class Head:
    """A head's square on the canvas: centre, radius, and how far the face looks sideways (-1 to 1)."""

    canvas: Canvas
    x: float
    y: float
    r: float
    look: float

    def at(self, points: Points, depth: float = 0.0) -> list[tuple[float, float]]:
        """Head points on the canvas; `depth` (0 skull, 1 nose tip) moves with the look."""
        shift = 0.22 * self.look * depth
        return [(self.x + self.r * (px + shift), self.y + self.r * py) for px, py in points]

    def blob(self, points: Points, fill: Colour, depth: float = 0.0, outlined: bool = True) -> None:
        """A smooth filled shape."""
        self.canvas.blob(self.at(points, depth), fill, outlined)

    def shape(self, points: Points, fill: Colour, outlined: bool = True) -> None:
        """A filled polygon."""
        self.canvas.shape(self.at(points), fill, outlined)

    def oval(self, x: float, y: float, rx: float, ry: float, fill: Colour, depth: float = 0.0, turn: float = 0) -> None:
        """A filled ellipse without an outline."""
        ((cx, cy),) = self.at([(x, y)], depth)
        self.canvas.oval(cx, cy, rx * self.r, ry * self.r, fill, turn, outlined=False)

    def line(self, points: Points, width: float, fill: Colour, depth: float = 0.0) -> None:
        """An open line."""
        self.canvas.line(self.at(points, depth), width * self.r, fill)

    def eyes(self, x: float, y: float, rx: float, ry: float, fur: Fur, iris: Colour | None = None) -> None:
        """Two eyes with a highlight; on dark fur with a pale ring, with a coloured iris where one is given."""
        for side in (-1, 1):
            if fur.is_dark:
                self.oval(side * x, y, rx * 1.32, ry * 1.26, lighter(fur.main, 0.52), 0.6)
            self.oval(side * x, y, rx, ry, iris or INK, 0.6)
            if iris:
                self.oval(side * x, y, rx * 0.55, ry * 0.88, INK, 0.6)
            self.oval(side * x + rx * 0.24, y - ry * 0.38, rx * 0.36, ry * 0.32, WHITE, 0.6)
