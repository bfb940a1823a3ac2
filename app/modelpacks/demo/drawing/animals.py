"""Fox, dog, cat and rabbit: four heads on shared bodies, in three poses.

A head is drawn in its own square (radius 1 around its centre, ears above) and turned slightly to one
side by `look`. Knows nothing of styles, backgrounds or captions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.modelpacks.demo.drawing.canvas import Canvas, Colour, Points, darker, lighter, mirrored, mix

INK: Colour = (44, 34, 40)
PINK: Colour = (238, 150, 158)
CREAM: Colour = (253, 246, 234)


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

    def eyes(self, x: float, y: float, rx: float, ry: float, iris: Colour | None = None) -> None:
        """Two eyes with a highlight, with a coloured iris where one is given."""
        for side in (-1, 1):
            self.oval(side * x, y, rx, ry, iris or INK, 0.6)
            if iris:
                self.oval(side * x, y, rx * 0.5, ry * 0.85, INK, 0.6)
            self.oval(side * x + 0.03, y - ry * 0.4, rx * 0.36, ry * 0.3, (255, 255, 255), 0.6)


@dataclass(frozen=True)
class Fur:
    """The colours of one animal."""

    main: Colour
    light: Colour
    dark: Colour


HeadPainter = Callable[[Head, Fur, np.random.Generator], None]


def fox_head(head: Head, fur: Fur, _rng: np.random.Generator) -> None:
    """Pointed ears with dark backs, white cheeks, a narrow muzzle."""
    for side in (-1, 1):
        head.shape([(side * 0.86, -1.3), (side * 1.0, -0.2), (side * 0.14, -0.68)], fur.main)
        head.shape([(side * 0.86, -1.3), (side * 0.915, -0.87), (side * 0.575, -1.055)], fur.dark, outlined=False)
        head.shape([(side * 0.8, -0.95), (side * 0.84, -0.38), (side * 0.4, -0.62)], fur.dark, outlined=False)
    face = [(0.0, -0.8), (0.5, -0.68), (0.88, -0.2), (1.12, 0.34), (0.66, 0.56), (0.26, 0.92), (0.0, 1.04)]
    head.blob(mirrored(face), fur.main)
    for side in (-1, 1):
        outer, inner = [(0.26, 0.9), (0.66, 0.55), (1.08, 0.33)], [(0.7, 0.2), (0.34, 0.16), (0.14, 0.5)]
        cheek = [*inner, (0.0, 0.78), (0.0, 1.0), *outer]
        head.blob([(side * x, y) for x, y in cheek], fur.light, 0.25, outlined=False)
    head.eyes(0.42, 0.02, 0.115, 0.15)
    head.oval(0, 0.86, 0.18, 0.14, INK, 0.8)


def dog_head(head: Head, fur: Fur, rng: np.random.Generator) -> None:
    """Floppy ears, a broad light muzzle, a big nose and often a tongue."""
    skull = [(0.0, -0.88), (0.5, -0.78), (0.84, -0.3), (0.82, 0.3), (0.6, 0.8), (0.0, 1.02)]
    head.blob(mirrored(skull), fur.main)
    head.blob(mirrored([(0.0, -0.5), (0.12, -0.3), (0.3, 0.05), (0.0, 0.1)]), fur.light, 0.5, outlined=False)
    if rng.random() < 0.75:
        tongue = mirrored([(0.0, 0.6), (0.17, 0.7), (0.17, 1.1), (0.0, 1.2)])
        head.blob(tongue, (232, 104, 122), 0.6)
    muzzle = mirrored([(0.0, 0.0), (0.34, 0.08), (0.56, 0.42), (0.4, 0.74), (0.0, 0.7)])
    head.blob(muzzle, fur.light, 0.6)
    for side in (-1, 1):
        ear = [(0.46, -0.86), (0.86, -0.76), (1.16, -0.2), (1.24, 0.42), (1.0, 0.68), (0.8, 0.3), (0.72, -0.3)]
        head.blob([(side * x, y) for x, y in ear], mix(fur.main, fur.dark, 0.55))
    head.eyes(0.38, -0.16, 0.125, 0.15)
    head.oval(0, 0.2, 0.24, 0.17, INK, 0.8)
    head.line([(0, 0.3), (0, 0.52)], 0.06, INK, 0.7)
    head.line([(-0.28, 0.56), (-0.12, 0.62), (0, 0.52), (0.12, 0.62), (0.28, 0.56)], 0.055, INK, 0.65)


def cat_head(head: Head, fur: Fur, rng: np.random.Generator) -> None:
    """A round face, upright ears, coloured eyes and whiskers."""
    for side in (-1, 1):
        head.shape([(side * 0.78, -1.2), (side * 0.98, -0.25), (side * 0.2, -0.7)], fur.main)
        head.shape([(side * 0.74, -0.95), (side * 0.84, -0.4), (side * 0.4, -0.62)], PINK, outlined=False)
    head.blob(mirrored([(0.0, -0.78), (0.6, -0.66), (0.98, -0.05), (0.9, 0.45), (0.5, 0.78), (0.0, 0.84)]), fur.main)
    if rng.random() < 0.6:
        for x in (-0.24, 0.0, 0.24):
            head.line([(x, -0.72), (x * 0.8, -0.42)], 0.09, fur.dark, 0.3)
    for side in (-1, 1):
        head.oval(side * 0.17, 0.42, 0.24, 0.2, fur.light, 0.5)
    iris = [(132, 190, 92), (236, 190, 70), (110, 176, 214)][int(rng.integers(3))]
    head.eyes(0.42, 0.0, 0.2, 0.19, iris)
    head.shape(head_triangle(0.11, 0.26, 0.4), PINK, outlined=False)
    for side in (-1, 1):
        for y in (0.36, 0.52):
            head.line([(side * 0.5, y), (side * 1.22, y * 1.5 - 0.26)], 0.035, mix(fur.dark, INK, 0.4))


def head_triangle(half: float, top: float, bottom: float) -> list[tuple[float, float]]:
    """A nose: a triangle that points down."""
    return [(-half, top), (half, top), (0.0, bottom)]


def rabbit_head(head: Head, fur: Fur, rng: np.random.Generator) -> None:
    """Long upright ears, a small pink nose and two teeth."""
    droop = rng.uniform(0.1, 0.34)
    for side in (-1, 1):
        head.canvas.oval(
            head.x + side * head.r * (0.4 + droop * 0.5), head.y - head.r * 1.3, head.r * 0.24, head.r * 0.85, fur.main,
            side * droop,
        )  # fmt: skip
        head.oval(side * (0.41 + droop * 0.5), -1.28, 0.12, 0.66, PINK, 0.0, side * droop)
    head.blob(mirrored([(0.0, -0.8), (0.52, -0.66), (0.8, -0.05), (0.84, 0.4), (0.5, 0.78), (0.0, 0.84)]), fur.main)
    for side in (-1, 1):
        head.oval(side * 0.2, 0.42, 0.27, 0.22, fur.light, 0.5)
    head.oval(0, 0.68, 0.12, 0.14, (255, 255, 252), 0.5)
    head.eyes(0.42, -0.08, 0.13, 0.17)
    head.shape(head_triangle(0.12, 0.22, 0.38), PINK, outlined=False)


def _tail_up(canvas: Canvas, class_name: str, fur: Fur, x: float, y: float, size: float) -> None:
    """The tail of each kind, rooted at (x, y), reaching right and up by about `size`."""

    def at(points: Points) -> list[tuple[float, float]]:
        return [(x + px * size, y + py * size) for px, py in points]

    if class_name == "fox":
        brush = [(-0.1, 0.02), (0.3, 0.2), (0.75, 0.05), (0.98, -0.4), (0.86, -1.0), (0.6, -0.55), (0.25, -0.25)]
        canvas.blob(at(brush), fur.main)
        canvas.blob(at([(0.99, -0.5), (0.88, -1.02), (0.58, -0.58), (0.8, -0.36)]), fur.light, outlined=False)
    elif class_name == "dog":
        plume = [(-0.1, 0.0), (0.3, 0.02), (0.75, -0.2), (0.95, -0.75), (0.6, -0.55), (0.2, -0.3)]
        canvas.blob(at(plume), fur.light)
    elif class_name == "cat":
        line = at([(-0.1, 0.0), (0.3, 0.05), (0.62, -0.1), (0.74, -0.5), (0.62, -0.85), (0.8, -1.05)])
        canvas.line(line, 0.19 * size, darker(fur.main, 0.25))
        canvas.line(line, 0.14 * size, fur.main)
    else:
        canvas.oval(x + 0.12, y, 0.15, 0.14, fur.light)


def _leg(canvas: Canvas, class_name: str, x: float, top: float, foot: float, width: float, fur: Fur) -> None:
    """One straight leg; a fox wears dark stockings, the others light paws."""
    half = width / 2
    shin = [(x - half, top), (x + half, top), (x + half, foot - 0.04), (x, foot), (x - half, foot - 0.04)]
    canvas.blob(shin, fur.main)
    if class_name == "fox":
        sock = [(x - half, foot - 0.2), (x + half, foot - 0.2), (x + half * 1.1, foot - 0.03), (x, foot + 0.01)]
        canvas.blob([*sock, (x - half * 1.1, foot - 0.03)], fur.dark, outlined=False)
    else:
        canvas.oval(x, foot - 0.05, half * 1.2, 0.06, fur.light)


def _sitting(canvas: Canvas, class_name: str, fur: Fur, rng: np.random.Generator) -> Head:
    plump = rng.uniform(0.9, 1.12)
    _tail_up(canvas, class_name, fur, 0.3 * plump, 0.72, rng.uniform(0.64, 0.8))
    body = [(0.0, -0.2), (0.24, 0.0), (0.38, 0.5), (0.44, 0.8), (0.3, 0.92), (0.0, 0.93)]
    canvas.blob(mirrored([(x * plump, y) for x, y in body]), fur.main)
    canvas.blob(mirrored([(0.0, -0.1), (0.2, 0.08), (0.17, 0.42), (0.0, 0.62)]), fur.light, outlined=False)
    for side in (-1, 1):
        canvas.oval(side * 0.33 * plump, 0.78, 0.15, 0.13, fur.main)
        _leg(canvas, class_name, side * 0.13, 0.42, 0.93, 0.19, fur)
    return Head(canvas, 0.0, -0.32 if class_name != "rabbit" else -0.12, 0.45, rng.uniform(-1, 1))


def _standing(canvas: Canvas, class_name: str, fur: Fur, rng: np.random.Generator) -> Head:
    long = rng.uniform(0.92, 1.1)
    far = Fur(darker(fur.main, 0.22), darker(fur.light, 0.15), fur.dark)
    _tail_up(canvas, class_name, fur, 0.52 * long, 0.12, rng.uniform(0.42, 0.52))
    for x in (-0.16, 0.33):
        _leg(canvas, class_name, x * long, 0.3, 0.88, 0.15, far)
    back = [(-0.5, -0.06), (-0.1, 0.0), (0.4, -0.02), (0.62, 0.2), (0.56, 0.46), (0.1, 0.46), (-0.4, 0.5), (-0.56, 0.2)]
    canvas.blob([(x * long, y) for x, y in back], fur.main)
    canvas.blob([(-0.56 * long, 0.1), (-0.36, 0.2), (-0.3, 0.42), (-0.45 * long, 0.48)], fur.light, outlined=False)
    for x in (-0.34, 0.5):
        _leg(canvas, class_name, x * long, 0.3, 0.92, 0.16, fur)
    return Head(canvas, -0.46 * long, -0.24, 0.4, rng.uniform(-1.2, 0))


def _portrait(canvas: Canvas, class_name: str, fur: Fur, rng: np.random.Generator) -> Head:
    chest = [(0.0, 0.3), (0.4, 0.4), (0.66, 0.8), (0.7, 1.05), (0.0, 1.12)]
    canvas.blob(mirrored(chest), fur.main)
    canvas.blob(mirrored([(0.0, 0.5), (0.32, 0.6), (0.34, 0.9), (0.0, 1.1)]), fur.light, outlined=False)
    low, small = (0.3, 0.62) if class_name == "rabbit" else (0.05, 0.7)
    return Head(canvas, 0.0, low, small, rng.uniform(-1, 1))


HEADS: dict[str, HeadPainter] = {"fox": fox_head, "dog": dog_head, "cat": cat_head, "rabbit": rabbit_head}


def _fur(class_name: str, main: Colour) -> Fur:
    if class_name == "fox":
        return Fur(main, CREAM if sum(main) < 690 else (255, 255, 255), darker(main, 0.72))
    return Fur(main, lighter(main, 0.55), darker(main, 0.42))


def draw_animal(canvas: Canvas, class_name: str, main: Colour, rng: np.random.Generator) -> None:
    """A fox, dog, cat or rabbit with fur of colour `main`: sitting, standing or as a portrait."""
    fur = _fur(class_name, main)
    shares = [0.65, 0.0, 0.35] if class_name == "rabbit" else [0.45, 0.3, 0.25]
    pose = (_sitting, _standing, _portrait)[int(rng.choice(3, p=shares))]
    HEADS[class_name](pose(canvas, class_name, fur, rng), fur, rng)
