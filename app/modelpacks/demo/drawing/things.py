"""Bird, fish, butterfly, flower, tree, house, boat and car.

Each takes the canvas, the main colour and a random generator, and draws itself in the unit square.
Knows nothing of styles, backgrounds or captions.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from app.modelpacks.demo.drawing.canvas import Canvas, Colour, darker, lighter, mix

Painter = Callable[[Canvas, Colour, np.random.Generator], None]

INK: Colour = (44, 34, 40)
WHITE: Colour = (255, 255, 252)
WOOD: Colour = (138, 92, 56)
LEAF: Colour = (84, 154, 70)
GLASS: Colour = (176, 216, 236)
BEAK: Colour = (244, 166, 46)


def bird(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A round song bird, perched with folded wing or with the wing raised."""
    plump = rng.uniform(0.9, 1.1)
    wing, belly = darker(main, 0.25), lighter(main, 0.55)
    for x in (-0.06, 0.14):
        canvas.line([(x, 0.5), (x, 0.84), (x - 0.12, 0.9)], 0.05, BEAK)
    canvas.blob([(0.3, 0.1), (0.62, 0.2), (0.98, 0.42), (0.9, 0.56), (0.5, 0.5), (0.3, 0.4)], wing)
    body = [(-0.3, -0.35), (0.1, -0.28), (0.45, 0.1), (0.5, 0.38), (0.1, 0.62 * plump), (-0.36, 0.48), (-0.52, 0.0)]
    canvas.blob(body, main)
    canvas.blob([(-0.5, 0.0), (-0.25, 0.1), (-0.1, 0.4), (0.1, 0.58 * plump), (-0.34, 0.46)], belly, outlined=False)
    canvas.oval(-0.32, -0.4, 0.31, 0.3, main)
    canvas.shape([(-0.58, -0.46), (-0.58, -0.26), (-0.92, -0.32)], BEAK)
    canvas.oval(-0.42, -0.46, 0.06, 0.07, INK, outlined=False)
    canvas.oval(-0.44, -0.485, 0.022, 0.025, WHITE, outlined=False)
    if rng.random() < 0.5:
        canvas.blob([(-0.12, 0.0), (0.2, -0.02), (0.52, 0.24), (0.6, 0.4), (0.2, 0.4), (-0.08, 0.22)], wing)
    else:
        canvas.blob([(-0.1, 0.14), (-0.06, -0.3), (0.3, -0.85), (0.66, -0.9), (0.56, -0.35), (0.3, 0.16)], wing)


def fish(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A fish in profile with stripes or a light belly, and a few bubbles."""
    fin, tall = darker(main, 0.2), rng.uniform(0.36, 0.52)
    canvas.blob([(0.46, 0.0), (0.7, -0.26), (0.98, -0.4), (0.88, 0.0), (0.98, 0.4), (0.7, 0.26)], fin)
    canvas.blob([(-0.2, -tall * 0.8), (0.05, -tall - 0.26), (0.4, -tall - 0.1), (0.36, -tall * 0.5)], fin)
    canvas.blob([(-0.05, tall * 0.8), (0.1, tall + 0.2), (0.3, tall + 0.12), (0.26, tall * 0.6)], fin)
    body = [(-0.85, 0.05), (-0.6, -tall * 0.72), (-0.1, -tall), (0.36, -tall * 0.55), (0.6, 0.0), (0.36, tall * 0.55)]
    canvas.blob([*body, (-0.1, tall), (-0.6, tall * 0.75)], main)
    if rng.random() < 0.55:
        for x in (-0.22, 0.06, 0.32):
            half = tall * (0.86 - abs(x) * 0.9)
            canvas.blob([(x - 0.05, -half), (x + 0.06, -half), (x + 0.09, 0), (x + 0.06, half), (x - 0.05, half)],
                        lighter(main, 0.6), outlined=False)  # fmt: skip
    else:
        canvas.blob([(-0.78, 0.14), (-0.1, 0.2), (0.4, 0.1), (0.2, tall * 0.66), (-0.2, tall * 0.93),
                     (-0.58, tall * 0.68)], lighter(main, 0.55), outlined=False)  # fmt: skip
    canvas.blob([(-0.2, 0.06), (0.08, -0.04), (0.14, 0.12), (0.02, 0.24)], fin)
    canvas.oval(-0.54, -0.1, 0.11, 0.11, WHITE)
    canvas.oval(-0.56, -0.1, 0.055, 0.06, INK, outlined=False)
    for _ in range(int(rng.integers(0, 4))):
        radius = rng.uniform(0.035, 0.07)
        canvas.oval(rng.uniform(-1.05, -0.7), rng.uniform(-0.8, -0.3), radius, radius, GLASS)


def butterfly(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """Four wings with spots and a dark edge, seen from above."""
    edge, spot = darker(main, 0.6), lighter(main, 0.7)
    wide = rng.uniform(0.88, 1.06)
    for side in (-1, 1):
        upper = [(0.06, -0.1), (0.3, -0.62), (0.72, -0.86), (0.98, -0.6), (0.84, -0.16), (0.4, 0.08)]
        lower = [(0.06, 0.02), (0.44, 0.06), (0.76, 0.22), (0.76, 0.6), (0.46, 0.82), (0.2, 0.56)]
        for wing, cx, cy in ((upper, 0.55, -0.37), (lower, 0.45, 0.38)):
            placed = [(side * wide * x, y) for x, y in wing]
            inner = [(side * wide * (cx + (x - cx) * 0.78), cy + (y - cy) * 0.78) for x, y in wing]
            canvas.blob(placed, edge)
            canvas.blob(inner, main, outlined=False)
        canvas.oval(side * wide * 0.68, -0.52, 0.11, 0.11, spot, outlined=False)
        canvas.oval(side * wide * 0.52, 0.46, 0.09, 0.1, spot, outlined=False)
        canvas.line([(0.0, -0.45), (side * 0.1, -0.75), (side * 0.26, -0.92)], 0.03, INK)
    canvas.oval(0, 0.02, 0.075, 0.48, INK, outlined=False)
    canvas.oval(0, -0.46, 0.1, 0.1, INK, outlined=False)


def flower(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A daisy-like flower or a tulip on a stem with two leaves."""
    lean = rng.uniform(-0.14, 0.14)
    canvas.line([(lean, -0.2), (lean * 0.4, 0.4), (0, 0.94)], 0.075, darker(LEAF, 0.15))
    for side in (-1, 1):
        y = rng.uniform(0.5, 0.66)
        canvas.blob([(0, y + 0.18), (side * 0.2, y - 0.08), (side * 0.56, y - 0.2), (side * 0.36, y + 0.14)], LEAF)
    if rng.random() < 0.3:
        for x, turn in ((-0.22, -0.22), (0.22, 0.22), (0.0, 0.0)):
            canvas.oval(lean + x, -0.4, 0.24, 0.46, mix(main, darker(main, 0.2), abs(x) * 4), turn)
        return
    count, ring, start = int(rng.integers(5, 9)), rng.uniform(0.33, 0.4), rng.uniform(0, 1)
    for k in range(count):
        angle = start + 2 * math.pi * k / count
        petal = main if k % 2 else mix(main, lighter(main, 0.5), 0.35)
        x, y = lean + ring * math.cos(angle), -0.38 + ring * math.sin(angle)
        canvas.oval(x, y, 0.3, 1.25 / count, petal, angle)
    centre = (246, 200, 60) if main[0] < 225 or main[2] > 120 or main[1] < 120 else (140, 88, 46)
    canvas.oval(lean, -0.38, 0.19, 0.19, centre)


def tree(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A round leafy tree or a fir."""
    lean = rng.uniform(-0.06, 0.06)
    canvas.blob(
        [(-0.16, 0.94), (-0.09, 0.4), (lean - 0.08, -0.1), (lean + 0.08, -0.1), (0.09, 0.4), (0.16, 0.94)], WOOD
    )
    if rng.random() < 0.35:
        for top, bottom, half in ((-0.1, 0.55, 0.66), (-0.5, 0.2, 0.53), (-0.95, -0.18, 0.38)):
            fir = [(lean, top), (lean + half, bottom), (lean, bottom + 0.06), (lean - half, bottom)]
            canvas.shape(fir, mix(main, darker(main, 0.3), (bottom + 0.2)))
        return
    crowns = ((-0.38, -0.14, 0.38), (0.38, -0.14, 0.38), (0.0, -0.08, 0.42), (-0.22, -0.48, 0.4), (0.24, -0.48, 0.38))
    for x, y, radius in crowns:
        canvas.oval(lean + x * rng.uniform(0.9, 1.15), y, radius, radius * 0.94, darker(main, 0.14))
    for x, y, radius in ((-0.2, -0.42, 0.3), (0.12, -0.56, 0.26), (0.28, -0.2, 0.22), (-0.36, -0.1, 0.2)):
        canvas.oval(lean + x, y, radius, radius * 0.9, main, outlined=False)
    for _ in range(5):
        x, y = rng.uniform(-0.4, 0.4), rng.uniform(-0.65, 0.05)
        canvas.oval(lean + x, y, 0.09, 0.075, lighter(main, 0.35), outlined=False)


def house(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A house with gabled roof, chimney, door and windows."""
    wide, roof = rng.uniform(0.56, 0.72), rng.uniform(-0.92, -0.72)
    tiles = mix((150, 74, 58), (86, 84, 100), float(rng.random()))
    chimney = rng.uniform(0.26, 0.42)
    canvas.shape([(chimney, -0.85), (chimney + 0.16, -0.85), (chimney + 0.16, -0.2), (chimney, -0.3)], (172, 104, 84))
    canvas.shape([(-wide, -0.16), (wide, -0.16), (wide, 0.9), (-wide, 0.9)], main)
    canvas.shape([(-wide - 0.16, -0.12), (0.0, roof), (wide + 0.16, -0.12)], tiles)
    door = rng.choice([-0.3, 0.0, 0.3])
    canvas.shape([(door - 0.13, 0.38), (door + 0.13, 0.38), (door + 0.13, 0.9), (door - 0.13, 0.9)], WOOD)
    canvas.oval(door + 0.07, 0.66, 0.025, 0.025, BEAK, outlined=False)
    pane = mix(GLASS, (252, 228, 140), float(rng.random()))
    for x in (-0.36, 0.36):
        top = -0.02 if abs(x - door) < 0.2 else 0.12
        canvas.shape([(x - 0.15, top), (x + 0.15, top), (x + 0.15, top + 0.27), (x - 0.15, top + 0.27)], WHITE)
        canvas.shape([(x - 0.11, top + 0.04), (x + 0.11, top + 0.04), (x + 0.11, top + 0.23), (x - 0.11, top + 0.23)],
                     pane, outlined=False)  # fmt: skip
    canvas.oval(0, -0.4, 0.11, 0.11, pane)


def boat(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A sailing boat on a patch of water."""
    tall = rng.uniform(-0.98, -0.82)
    canvas.line([(0.0, 0.4), (0.0, tall)], 0.06, WOOD)
    canvas.blob([(0.05, tall + 0.06), (0.36, -0.2), (0.62, 0.22), (0.3, 0.28), (0.05, 0.26)], WHITE)
    canvas.blob([(-0.05, tall + 0.2), (-0.26, -0.14), (-0.48, 0.22), (-0.24, 0.27), (-0.05, 0.24)], (246, 236, 214))
    canvas.shape([(0.0, tall), (0.24, tall + 0.07), (0.0, tall + 0.15)], darker(main, 0.1), outlined=False)
    canvas.blob([(-0.8, 0.36), (0.0, 0.4), (0.84, 0.32), (0.6, 0.72), (0.3, 0.82), (-0.34, 0.82), (-0.62, 0.7)], main)
    canvas.line([(-0.72, 0.48), (0.0, 0.52), (0.74, 0.46)], 0.055, lighter(main, 0.7))
    wave = (74, 150, 196)
    for k in range(5):
        x = -0.84 + 0.42 * k
        canvas.blob(
            [(x - 0.28, 0.86), (x - 0.08, 0.74), (x + 0.14, 0.82), (x + 0.28, 0.9), (x, 0.98)], wave, outlined=False
        )


def car(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A round little car from the side."""
    roof = rng.uniform(-0.5, -0.36)
    cabin = [(-0.6, 0.12), (-0.5, -0.12), (-0.3, roof), (0.24, roof), (0.5, -0.08), (0.6, 0.12)]
    canvas.blob(cabin, main)
    canvas.blob([(-0.42, 0.04), (-0.24, roof + 0.13), (-0.04, roof + 0.12), (-0.04, 0.04)], GLASS)
    canvas.blob([(0.06, 0.04), (0.06, roof + 0.12), (0.22, roof + 0.14), (0.4, 0.04)], GLASS)
    body = [(-0.95, 0.2), (-0.7, 0.04), (0.0, 0.02), (0.7, 0.06), (0.96, 0.24), (0.96, 0.5), (0.7, 0.58), (-0.7, 0.58)]
    canvas.blob([*body, (-0.96, 0.5)], main)
    canvas.line([(-0.86, 0.38), (0.0, 0.38), (0.86, 0.38)], 0.045, darker(main, 0.3))
    canvas.oval(-0.9, 0.26, 0.07, 0.08, (252, 232, 150))
    canvas.oval(0.92, 0.28, 0.05, 0.08, (214, 62, 56))
    radius = rng.uniform(0.21, 0.26)
    for x in (-0.5, 0.52):
        canvas.oval(x, 0.6, radius, radius, (58, 56, 64))
        canvas.oval(x, 0.6, radius * 0.5, radius * 0.5, (206, 208, 214))


PAINTERS: dict[str, Painter] = {
    "bird": bird,
    "fish": fish,
    "butterfly": butterfly,
    "flower": flower,
    "tree": tree,
    "house": house,
    "boat": boat,
    "car": car,
}
