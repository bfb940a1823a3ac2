"""House, boat, car and balloon, each in two or three kinds.

Each function takes the canvas, the main colour and a random generator, and draws its subject in the unit square.
Imports no styles, backgrounds or captions.
"""

from __future__ import annotations

import numpy as np

from demo_pack.drawing.canvas import Canvas, Colour, Points, darker, mirrored, mix, pale_mark
from demo_pack.drawing.palette import BEAK, GLASS, WHITE, WOOD

SAIL: Colour = (246, 236, 214)
WAVE: Colour = (74, 150, 196)
TYRE: Colour = (58, 56, 64)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _window(canvas: Canvas, x: float, top: float, pane: Colour) -> None:
    canvas.shape(_box(x - 0.16, top, x + 0.16, top + 0.3), WHITE)
    canvas.shape(_box(x - 0.1, top + 0.06, x + 0.1, top + 0.24), pane, outlined=False)


def _door(canvas: Canvas, x: float, top: float) -> None:
    canvas.shape(_box(x - 0.14, top, x + 0.14, 0.9), WOOD)
    canvas.oval(x + 0.07, (top + 0.94) / 2, 0.035, 0.035, BEAK, outlined=False)


def _cottage(canvas: Canvas, main: Colour, tiles: Colour, pane: Colour, rng: np.random.Generator) -> None:
    wide, roof = rng.uniform(0.6, 0.74), rng.uniform(-0.92, -0.72)
    canvas.shape(_box(0.3, -0.85, 0.48, -0.2), (172, 104, 84))
    canvas.shape(_box(-wide, -0.16, wide, 0.9), main)
    canvas.shape([(-wide - 0.18, -0.1), (0.0, roof), (wide + 0.18, -0.1)], tiles)
    door = float(rng.choice([-0.34, 0.0, 0.34]))
    _door(canvas, door, 0.4)
    for x in (-0.38, 0.38):
        _window(canvas, x, -0.02 if abs(x - door) < 0.2 else 0.14, pane)
    canvas.oval(0, -0.38, 0.12, 0.12, pane)


def _tower(canvas: Canvas, main: Colour, tiles: Colour, pane: Colour, rng: np.random.Generator) -> None:
    wide = rng.uniform(0.46, 0.54)
    canvas.shape(_box(-wide, -0.4, wide, 0.9), main)
    canvas.shape([(-wide - 0.14, -0.34), (0.0, rng.uniform(-1.02, -0.9)), (wide + 0.14, -0.34)], tiles)
    for x in (-0.23, 0.23):
        _window(canvas, x, -0.22, pane)
    _window(canvas, 0.23, 0.26, pane)
    _door(canvas, -0.2, 0.4)


def _longhouse(canvas: Canvas, main: Colour, tiles: Colour, pane: Colour, rng: np.random.Generator) -> None:
    roof = rng.uniform(-0.6, -0.44)
    canvas.shape(_box(-0.5, roof - 0.26, -0.3, roof + 0.2), (172, 104, 84))
    canvas.shape(_box(-0.86, 0.02, 0.86, 0.9), main)
    canvas.shape([(-1.02, 0.08), (-0.7, roof), (0.7, roof), (1.02, 0.08)], tiles)
    _door(canvas, 0.0, 0.38)
    for x in (-0.52, 0.52):
        _window(canvas, x, 0.28, pane)


def house(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A gabled cottage, a tall house or a long one."""
    tiles = mix((150, 74, 58), (86, 84, 100), float(rng.random()))
    pane = mix(GLASS, (252, 228, 140), float(rng.random()))
    canvas.shadow(0.0, 0.9)
    build = (_cottage, _tower, _longhouse)[int(rng.choice(3, p=(0.5, 0.22, 0.28)))]
    build(canvas, main, tiles, pane, rng)


def _hull(canvas: Canvas, main: Colour) -> None:
    canvas.blob([(-0.86, 0.32), (0.0, 0.4), (0.9, 0.28), (0.66, 0.7), (0.3, 0.84), (-0.34, 0.84), (-0.66, 0.7)], main)
    canvas.line([(-0.72, 0.48), (0.0, 0.53), (0.76, 0.45)], 0.075, pale_mark(main, 0.7))
    for k in range(5):
        x = -0.84 + 0.42 * k
        crest = [(x - 0.28, 0.86), (x - 0.08, 0.72), (x + 0.14, 0.82), (x + 0.28, 0.9), (x, 1.0)]
        canvas.blob(crest, WAVE, outlined=False)


def boat(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A sailing boat or a little steamer on a patch of water; a sail carries the boat's colour too."""
    kind, tall = rng.random(), rng.uniform(-0.98, -0.84)
    if kind < 0.7:
        canvas.line([(0.0, 0.4), (0.0, tall)], 0.07, WOOD)
        sail = main if kind < 0.25 else WHITE
        canvas.blob([(0.06, tall + 0.06), (0.4, -0.2), (0.68, 0.22), (0.3, 0.28), (0.06, 0.26)], sail)
        canvas.blob([(-0.06, tall + 0.2), (-0.28, -0.14), (-0.54, 0.22), (-0.24, 0.27), (-0.06, 0.24)], SAIL)
        canvas.shape([(0.0, tall - 0.04), (0.28, tall + 0.05), (0.0, tall + 0.14)], main, outlined=False)
    else:
        canvas.shape(_box(0.12, -0.66, 0.38, 0.0), darker(main, 0.25))
        canvas.shape(_box(0.12, -0.5, 0.38, -0.36), WHITE, outlined=False)
        canvas.shape(_box(-0.48, -0.1, 0.56, 0.42), WHITE)
        for x in (-0.26, 0.06, 0.36):
            canvas.oval(x, 0.13, 0.1, 0.1, GLASS)
    _hull(canvas, main)


def _wheels(canvas: Canvas, xs: tuple[float, float], radius: float) -> None:
    for x in xs:
        canvas.oval(x, 0.62, radius, radius, TYRE)
        canvas.oval(x, 0.62, radius * 0.5, radius * 0.5, (206, 208, 214))


def _bus(canvas: Canvas, main: Colour) -> None:
    canvas.shape([(-0.94, 0.6), (-0.94, 0.02), (-0.78, -0.46), (0.94, -0.46), (0.94, 0.6)], main)
    canvas.shape([(-0.84, 0.04), (-0.7, -0.32), (-0.46, -0.32), (-0.46, 0.04)], GLASS)
    for x in (-0.18, 0.24, 0.66):
        canvas.shape(_box(x - 0.16, -0.32, x + 0.16, 0.04), GLASS)
    canvas.line([(-0.86, 0.26), (0.88, 0.26)], 0.08, pale_mark(main, 0.65))


def _sedan(canvas: Canvas, main: Colour, roof: float) -> None:
    canvas.blob([(-0.6, 0.12), (-0.5, -0.12), (-0.3, roof), (0.24, roof), (0.5, -0.08), (0.6, 0.12)], main)
    canvas.blob([(-0.42, 0.04), (-0.24, roof + 0.13), (-0.04, roof + 0.12), (-0.04, 0.04)], GLASS)
    canvas.blob([(0.06, 0.04), (0.06, roof + 0.12), (0.22, roof + 0.14), (0.4, 0.04)], GLASS)
    body = [(-0.95, 0.2), (-0.7, 0.04), (0.0, 0.02), (0.7, 0.06), (0.96, 0.24), (0.96, 0.5), (0.7, 0.6), (-0.7, 0.6)]
    canvas.blob([*body, (-0.96, 0.5)], main)
    canvas.line([(-0.84, 0.38), (0.0, 0.38), (0.84, 0.38)], 0.06, darker(main, 0.3))


def _pickup(canvas: Canvas, main: Colour, roof: float) -> None:
    canvas.blob([(-0.62, 0.14), (-0.5, roof + 0.02), (-0.3, roof - 0.04), (0.02, roof), (0.1, 0.14)], main)
    canvas.blob([(-0.46, 0.08), (-0.36, roof + 0.13), (-0.06, roof + 0.13), (-0.02, 0.08)], GLASS)
    canvas.shape([(-0.96, 0.14), (0.96, 0.1), (0.96, 0.6), (-0.96, 0.6)], main)
    canvas.shape(_box(0.16, 0.02, 0.98, 0.14), darker(main, 0.25))


def car(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A round little car, a van or a pickup from the side."""
    kind, roof = rng.random(), rng.uniform(-0.5, -0.36)
    canvas.shadow(0.0, 1.0, 0.84)
    if kind < 0.55:
        _sedan(canvas, main, roof)
    elif kind < 0.8:
        _bus(canvas, main)
    else:
        _pickup(canvas, main, roof)
    canvas.oval(-0.9, 0.28, 0.08, 0.09, (252, 232, 150))
    canvas.oval(0.92, 0.3, 0.06, 0.09, (214, 62, 56))
    _wheels(canvas, (-0.5, 0.52), rng.uniform(0.22, 0.27))


def balloon(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A hot-air balloon with coloured gores and a wicker basket."""
    wide, pale = rng.uniform(0.62, 0.76), pale_mark(main, 0.45)
    for side in (-1, 1):
        canvas.line([(side * 0.24, 0.34), (side * 0.15, 0.68)], 0.05, WOOD)
    half = [(0.0, -1.0), (0.55, -0.88), (1.0, -0.4), (0.82, 0.06), (0.36, 0.44), (0.0, 0.46)]
    canvas.blob(mirrored([(x * wide, y) for x, y in half]), main)
    if rng.random() < 0.7:
        for share in (-0.62, 0.62):
            outer = [(share * 0.7, -0.82), (share * 1.06, -0.4), (share * 0.84, 0.06), (share * 0.36, 0.42)]
            inner = [(share * 0.2, 0.42), (share * 0.42, 0.06), (share * 0.5, -0.4), (share * 0.36, -0.82)]
            canvas.blob([(x * wide, y) for x, y in ((0.0, -0.98), *outer, *inner)], pale, outlined=False)
    else:
        band = [(-0.9, -0.5), (0.0, -0.4), (0.9, -0.5), (0.92, -0.26), (0.0, -0.1), (-0.92, -0.26)]
        canvas.blob([(x * wide, y) for x, y in band], pale, outlined=False)
    canvas.blob(_box(-0.2, 0.66, 0.2, 0.94), WOOD)
    canvas.line([(-0.2, 0.68), (0.2, 0.68)], 0.08, darker(WOOD, 0.3))
