"""The heads of fox, dog, cat and rabbit, each in its own square with the ears above.

Imports no bodies, poses or styles.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from demo_pack.drawing.canvas import Colour, Points, darker, lighter, mirrored, mix
from demo_pack.drawing.fur import Animal, Fur, Head
from demo_pack.drawing.palette import INK, PINK, TONGUE, WHITE

HeadPainter = Callable[[Head, Animal, np.random.Generator], None]
IRISES: tuple[Colour, ...] = ((140, 196, 92), (240, 194, 70), (112, 180, 220))

DOG_EARS: dict[str, Points] = {
    "floppy": [(0.44, -0.84), (0.84, -0.8), (1.14, -0.3), (1.22, 0.3), (1.0, 0.56), (0.8, 0.24), (0.7, -0.3)],
    "long": [(0.5, -0.66), (0.86, -0.72), (1.14, -0.1), (1.24, 0.72), (0.98, 1.04), (0.76, 0.6), (0.72, -0.1)],
    "folded": [(0.26, -0.92), (0.62, -1.2), (0.98, -1.06), (1.2, -0.5), (0.98, -0.36), (0.74, -0.56)],
    "retriever": [(0.42, -0.82), (0.82, -0.84), (1.12, -0.36), (1.3, 0.2), (1.14, 0.46), (1.02, 0.72), (0.84, 0.3),
                  (0.7, -0.2)],
}  # fmt: skip


def _both(head: Head, points: Points, fill: Colour, depth: float = 0.0, outlined: bool = True) -> None:
    for side in (-1, 1):
        head.blob([(side * x, y) for x, y in points], fill, depth, outlined)


def _nose(half: float, top: float, bottom: float) -> Points:
    """A triangle that points down."""
    return [(-half, top), (half, top), (0.0, bottom)]


def fox_head(head: Head, animal: Animal, _rng: np.random.Generator) -> None:
    """Big pointed ears with dark tips, white cheeks, a narrow muzzle."""
    fur = animal.fur
    for side in (-1, 1):
        head.shape([(side * 0.84, -1.42), (side * 1.02, -0.2), (side * 0.1, -0.68)], fur.main)
        head.shape([(side * 0.84, -1.42), (side * 0.91, -0.95), (side * 0.53, -1.115)], fur.dark, outlined=False)
        head.shape([(side * 0.76, -0.98), (side * 0.84, -0.4), (side * 0.4, -0.62)], fur.dark, outlined=False)
    face = [(0.0, -0.8), (0.5, -0.7), (0.88, -0.22), (1.18, 0.36), (0.68, 0.58), (0.26, 0.92), (0.0, 1.02)]
    head.blob(mirrored(face), fur.main)
    cheek = [(0.74, 0.22), (0.36, 0.2), (0.14, 0.5), (0.0, 0.74), (0.0, 0.98), (0.26, 0.88), (0.68, 0.56), (1.13, 0.35)]
    _both(head, cheek, fur.light, 0.25, outlined=False)
    head.eyes(0.42, 0.02, 0.145, 0.19, fur)
    head.oval(0, 0.82, 0.2, 0.155, INK, 0.8)


def _patch(head: Head, fur: Fur) -> None:
    head.oval(-0.4, -0.16, 0.34, 0.36, darker(fur.main, 0.34), 0.4)


def dog_head(head: Head, animal: Animal, rng: np.random.Generator) -> None:
    """Hanging ears, a broad light muzzle, a big nose and often a tongue."""
    fur = animal.fur
    skull = [(0.0, -0.88), (0.5, -0.78), (0.84, -0.3), (0.84, 0.3), (0.62, 0.8), (0.0, 1.0)]
    head.blob(mirrored(skull), fur.main)
    kind = rng.random()
    if animal.breed != "retriever" and kind < 0.3:
        _patch(head, fur)
    elif kind < 0.6:
        head.blob(mirrored([(0.0, -0.78), (0.13, -0.4), (0.26, 0.05), (0.0, 0.1)]), fur.light, 0.5, outlined=False)
    if rng.random() < 0.7:
        head.blob(mirrored([(0.0, 0.6), (0.18, 0.7), (0.18, 1.08), (0.0, 1.2)]), TONGUE, 0.6)
    muzzle = mirrored([(0.0, 0.02), (0.34, 0.1), (0.56, 0.42), (0.42, 0.76), (0.0, 0.74)])
    head.blob(muzzle, fur.light, 0.6)
    _both(head, DOG_EARS[animal.breed], mix(fur.main, fur.dark, 0.45 if animal.breed == "retriever" else 0.6))
    head.eyes(0.4, -0.16, 0.15, 0.18, fur)
    head.oval(0, 0.22, 0.25, 0.18, INK, 0.8)
    head.line([(0, 0.3), (0, 0.54)], 0.07, INK, 0.7)
    head.line([(-0.28, 0.56), (-0.12, 0.63), (0, 0.54), (0.12, 0.63), (0.28, 0.56)], 0.07, INK, 0.65)


def cat_head(head: Head, animal: Animal, rng: np.random.Generator) -> None:
    """A round face, upright ears, coloured eyes and whiskers."""
    fur = animal.fur
    for side in (-1, 1):
        head.shape([(side * 0.8, -1.22), (side * 0.98, -0.2), (side * 0.16, -0.7)], fur.main)
        head.shape([(side * 0.74, -0.95), (side * 0.84, -0.4), (side * 0.4, -0.62)], PINK, outlined=False)
    head.blob(mirrored([(0.0, -0.78), (0.6, -0.66), (0.98, -0.05), (0.92, 0.45), (0.5, 0.8), (0.0, 0.86)]), fur.main)
    if animal.breed == "striped":
        for x in (-0.26, 0.0, 0.26):
            head.line([(x, -0.7), (x * 0.8, -0.38)], 0.11, fur.dark, 0.3)
    elif animal.breed == "bib":
        head.blob(mirrored([(0.0, -0.6), (0.1, -0.2), (0.3, 0.3), (0.0, 0.4)]), fur.light, 0.5, outlined=False)
    whisker = fur.light if fur.is_dark else mix(fur.dark, INK, 0.3)
    for side in (-1, 1):
        for y in (0.34, 0.54):
            head.line([(side * 0.5, y), (side * 1.2, y * 1.5 - 0.26)], 0.05, whisker)
        head.oval(side * 0.17, 0.42, 0.26, 0.22, fur.light, 0.5)
    head.eyes(0.43, -0.02, 0.22, 0.22, fur, IRISES[int(rng.integers(3))])
    head.blob(_nose(0.14, 0.22, 0.42), PINK, 0.6, outlined=False)
    head.line([(-0.2, 0.52), (-0.1, 0.6), (0, 0.56), (0.1, 0.6), (0.2, 0.52)], 0.06, INK, 0.55)


def rabbit_head(head: Head, animal: Animal, rng: np.random.Generator) -> None:
    """Long ears, upright or one folded, a small pink nose and two teeth."""
    fur, droop, lop = animal.fur, rng.uniform(0.1, 0.34), rng.random() < 0.25
    for side in (-1, 1):
        bent = 0.75 if lop and side == 1 else droop
        x, y = side * (0.4 + bent * 0.5), -1.28 + 0.3 * (bent - droop)
        head.canvas.oval(
            head.x + head.r * x, head.y + head.r * y, head.r * 0.27, head.r * 0.86, fur.main, side * bent
        )  # fmt: skip
        head.oval(x, y + 0.03, 0.14, 0.64, PINK, 0.0, side * bent)
    head.blob(mirrored([(0.0, -0.8), (0.52, -0.66), (0.82, -0.05), (0.88, 0.4), (0.5, 0.8), (0.0, 0.86)]), fur.main)
    for side in (-1, 1):
        head.oval(side * 0.2, 0.44, 0.29, 0.24, fur.light, 0.5)
        if not fur.is_dark:
            head.oval(side * 0.66, 0.36, 0.15, 0.12, mix(lighter(fur.main, 0.2), PINK, 0.7), 0.2)
    head.oval(0, 0.7, 0.14, 0.15, WHITE, 0.5)
    head.eyes(0.43, -0.08, 0.155, 0.2, fur)
    head.blob(_nose(0.15, 0.2, 0.4), PINK, 0.6, outlined=False)


HEADS: dict[str, HeadPainter] = {"fox": fox_head, "dog": dog_head, "cat": cat_head, "rabbit": rabbit_head}
