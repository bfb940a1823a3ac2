"""Fox, dog, cat and rabbit: shared bodies in four poses, with the head, tail and legs of each kind.

Imports no styles, backgrounds or captions.
"""

from __future__ import annotations

import numpy as np

from demo_pack.drawing.canvas import Canvas, Colour, Points, darker, lighter, mirrored
from demo_pack.drawing.fur import Animal, Fur, Head
from demo_pack.drawing.heads import HEADS
from demo_pack.drawing.palette import CREAM, WHITE

POSE_SHARES = {"rabbit": (0.45, 0.0, 0.3, 0.25)}
USUAL_POSE_SHARES = (0.38, 0.25, 0.15, 0.22)
BREEDS = {"dog": ("floppy", "long", "folded"), "cat": ("striped", "plain", "bib")}
PUPPY_HEAD = 1.18

BRUSH = [(-0.1, 0.04), (0.3, 0.24), (0.78, 0.12), (1.06, -0.36), (0.9, -1.06), (0.58, -0.62), (0.22, -0.28)]
BRUSH_TIP = [(1.05, -0.44), (0.9, -1.06), (0.6, -0.66), (0.7, -0.4), (0.86, -0.5)]
PLUME = [(-0.1, 0.04), (0.3, 0.08), (0.62, -0.02), (0.9, -0.3), (0.96, -0.8), (0.66, -0.68), (0.44, -0.44), (0.2, -0.3)]
WHIP = [(-0.1, 0.0), (0.3, 0.06), (0.62, -0.08), (0.76, -0.5), (0.66, -0.85), (0.82, -1.05)]
WRAPPED = [(0.7, 0.56), (1.0, 0.6), (1.04, 0.86), (0.72, 1.02), (0.32, 1.02), (0.04, 0.84), (0.34, 0.7), (0.62, 0.74)]
WRAPPED_TIP = [(0.46, 1.02), (0.24, 0.99), (0.05, 0.84), (0.26, 0.72), (0.46, 0.72), (0.36, 0.82), (0.48, 0.9)]
BACK = [(-0.5, -0.06), (-0.1, 0.0), (0.4, -0.02), (0.62, 0.2), (0.56, 0.48), (0.1, 0.48), (-0.4, 0.52), (-0.56, 0.2)]
LAID = [(-0.5, 0.3), (-0.1, 0.2), (0.4, 0.24), (0.74, 0.46), (0.78, 0.8), (0.6, 0.92), (-0.3, 0.92), (-0.58, 0.7)]


def _tail_up(canvas: Canvas, animal: Animal, x: float, y: float, size: float) -> None:
    """The tail of each kind, rooted at (x, y), reaching right and up by about `size`."""

    def at(points: Points) -> list[tuple[float, float]]:
        return [(x + px * size, y + py * size) for px, py in points]

    fur = animal.fur
    if animal.class_name == "fox":
        canvas.blob(at(BRUSH), fur.main)
        canvas.blob(at(BRUSH_TIP), fur.light, outlined=False)
    elif animal.breed == "retriever":
        canvas.blob(at(PLUME), fur.light)
        canvas.blob(at([(-0.1, 0.0), (0.4, -0.1), (0.74, -0.34), (0.94, -0.78), (0.56, -0.6), (0.2, -0.3)]), fur.main)
    elif animal.class_name == "dog":
        canvas.line(at([(-0.1, -0.1), (0.4, -0.2), (0.7, -0.5), (0.74, -0.8)]), 0.2 * size, fur.main)
    elif animal.class_name == "cat":
        canvas.line(at(WHIP), 0.22 * size, darker(fur.main, 0.25))
        canvas.line(at(WHIP), 0.17 * size, fur.main)
    else:
        canvas.oval(x + 0.12, y, 0.16, 0.15, fur.light)


def _tail_wrapped(canvas: Canvas, animal: Animal) -> None:
    """The tail of a lying animal, laid forward along the ground."""
    fur = animal.fur
    if animal.class_name == "fox":
        canvas.blob(WRAPPED, fur.main)
        canvas.blob(WRAPPED_TIP, fur.light, outlined=False)
    elif animal.class_name == "rabbit":
        canvas.oval(0.76, 0.68, 0.15, 0.14, fur.light)
    else:
        width = 0.15 if animal.class_name == "cat" else 0.17
        path = [(0.68, 0.7), (0.88, 0.76), (0.84, 0.9), (0.56, 0.95), (0.24, 0.93)]
        canvas.line(path, width + 0.04, darker(fur.main, 0.3))
        canvas.line(path, width, fur.light if animal.breed == "retriever" else fur.main)


def _leg(canvas: Canvas, animal: Animal, fur: Fur, top: tuple[float, float], foot: tuple[float, float]) -> None:
    """One leg from hip to foot; a fox has dark legs, the others have light paws."""
    (x, y), (fx, fy), half = top, foot, 0.095
    canvas.blob([(x - half, y), (x + half, y), (fx + half, fy - 0.04), (fx, fy), (fx - half, fy - 0.04)], fur.main)
    if animal.class_name == "fox":
        kx = fx + (x - fx) * 0.45
        sock = [(kx - half, fy - 0.24), (kx + half, fy - 0.24), (fx + half * 1.15, fy - 0.03), (fx, fy + 0.01)]
        canvas.blob([*sock, (fx - half * 1.15, fy - 0.03)], fur.dark, outlined=False)
    else:
        canvas.oval(fx - 0.01, fy - 0.05, half * 1.25, 0.07, fur.light)


def _bib(canvas: Canvas, animal: Animal, x: float, y: float, size: float) -> None:
    """The light chest, tufted on long-haired animals."""
    if animal.breed == "retriever" or animal.class_name == "fox":
        half = [(0.0, -0.1), (0.6, 0.1), (0.78, 0.6), (0.5, 0.66), (0.46, 1.1), (0.2, 1.06), (0.0, 1.45)]
    else:
        half = [(0.0, -0.1), (0.55, 0.2), (0.5, 0.85), (0.0, 1.3)]
    canvas.blob([(x + px * size, y + py * size) for px, py in mirrored(half)], animal.fur.light, outlined=False)


def _head(canvas: Canvas, animal: Animal, x: float, y: float, r: float, look: float) -> Head:
    return Head(canvas, x, y, r * PUPPY_HEAD if animal.young else r, look)


def _sitting(canvas: Canvas, animal: Animal, rng: np.random.Generator) -> Head:
    fur, plump = animal.fur, rng.uniform(0.9, 1.12) * (0.88 if animal.young else 1.0)
    canvas.shadow(0.05, 0.62)
    _tail_up(canvas, animal, 0.3 * plump, 0.72, rng.uniform(0.6, 0.72))
    body = [(0.0, -0.2), (0.26, 0.0), (0.4, 0.5), (0.46, 0.8), (0.3, 0.92), (0.0, 0.93)]
    canvas.blob(mirrored([(x * plump, y) for x, y in body]), fur.main)
    _bib(canvas, animal, 0.0, 0.0, 0.42)
    for side in (-1, 1):
        canvas.oval(side * 0.34 * plump, 0.78, 0.16, 0.14, fur.main)
        _leg(canvas, animal, fur, (side * 0.14, 0.46), (side * 0.14, 0.93))
    height, size = (0.0, 0.42) if animal.class_name == "rabbit" else (-0.24 if animal.young else -0.3, 0.48)
    return _head(canvas, animal, 0.0, height, size, rng.uniform(-1, 1))


def _standing(canvas: Canvas, animal: Animal, rng: np.random.Generator) -> Head:
    """Side view, standing still or walking."""
    fur, long, stride = animal.fur, rng.uniform(0.92, 1.1), rng.choice([0.0, 0.0, 0.13])
    if animal.young:
        long *= 0.86
    far = Fur(darker(fur.main, 0.22), darker(fur.light, 0.15), fur.dark)
    canvas.shadow(0.05, 0.72)
    _tail_up(canvas, animal, 0.5 * long, 0.16, rng.uniform(0.46, 0.56))
    for x, step in ((-0.18, stride), (0.34, -stride)):
        _leg(canvas, animal, far, (x * long, 0.36), (x * long + step, 0.87))
    canvas.blob([(x * long, y) for x, y in BACK], fur.main)
    if animal.breed == "striped":
        for x in (-0.02, 0.2, 0.42):
            canvas.line([(x * long, 0.04), (x * long + 0.03, 0.24)], 0.07, fur.dark)
    for x, step in ((-0.38, -stride), (0.48, stride)):
        _leg(canvas, animal, fur, (x * long, 0.34), (x * long + step, 0.92))
    _bib(canvas, animal, -0.42 * long, 0.08, 0.28)
    return _head(canvas, animal, -0.46 * long, -0.22, 0.43, rng.uniform(-1.2, 0))


def _lying(canvas: Canvas, animal: Animal, rng: np.random.Generator) -> Head:
    fur = animal.fur
    canvas.shadow(0.1, 0.9)
    canvas.blob(LAID, fur.main)
    _bib(canvas, animal, -0.36, 0.4, 0.33)
    if animal.breed == "striped":
        for x in (0.1, 0.3):
            canvas.line([(x, 0.28), (x + 0.03, 0.48)], 0.07, fur.dark)
    canvas.oval(0.46, 0.66, 0.27, 0.25, fur.main)
    for x in (-0.62, -0.28):
        canvas.oval(x, 0.86, 0.2, 0.1, fur.dark if animal.class_name == "fox" else fur.light)
    _tail_wrapped(canvas, animal)
    return _head(canvas, animal, -0.4, 0.18, 0.46, rng.uniform(-1, 0.6))


def _portrait(canvas: Canvas, animal: Animal, rng: np.random.Generator) -> Head:
    """Head and shoulders, cut off by the lower edge of the picture."""
    chest = [(0.0, 0.2), (0.42, 0.34), (0.76, 0.9), (0.84, 1.8), (0.84, 6.0), (0.0, 6.0)]
    canvas.blob(mirrored(chest), animal.fur.main)
    _bib(canvas, animal, 0.0, 0.5, 0.62)
    low, small = (0.36, 0.56) if animal.class_name == "rabbit" else (0.02, 0.7)
    return Head(canvas, 0.0, low, small * (1.08 if animal.young else 1.0), rng.uniform(-1, 1))


def _fur(class_name: str, main: Colour) -> Fur:
    if class_name == "fox":
        return Fur(main, CREAM if sum(main) < 690 else WHITE, darker(main, 0.72))
    return Fur(main, lighter(main, 0.58), darker(main, 0.42))


def draw_animal(
    canvas: Canvas, class_name: str, main: Colour, rng: np.random.Generator, young: bool = False, golden: bool = False
) -> None:
    """A fox, dog, cat or rabbit with fur of colour `main`; a `golden` one has a retriever's ears and long fur."""
    usual = str(rng.choice(BREEDS.get(class_name, ("plain",))))
    animal = Animal(class_name, _fur(class_name, main), young, "retriever" if golden else usual)
    pose = (_sitting, _standing, _lying, _portrait)[
        int(rng.choice(4, p=POSE_SHARES.get(class_name, USUAL_POSE_SHARES)))
    ]
    HEADS[class_name](pose(canvas, animal, rng), animal, rng)
