"""Bird, fish, butterfly, elephant, turtle and snail.

Each function takes the canvas, the main colour and a random generator, and draws its subject in the unit square.
Imports no styles, backgrounds or captions.
"""

from __future__ import annotations

import numpy as np

from demo_pack.drawing.canvas import Canvas, Colour, Points, darker, lighter, mirrored, mix, pale_mark
from demo_pack.drawing.palette import BEAK, CREAM, GLASS, INK, LEAF, PINK, WHITE, WOOD


def eye(canvas: Canvas, x: float, y: float, r: float) -> None:
    """A dark eye with a highlight on a pale ring, clear on light and dark skin."""
    canvas.oval(x, y, r * 1.3, r * 1.35, WHITE, outlined=False)
    canvas.oval(x, y, r, r * 1.1, INK, outlined=False)
    canvas.oval(x + r * 0.25, y - r * 0.4, r * 0.38, r * 0.38, WHITE, outlined=False)


def bird(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A round song bird, perched on a twig with a folded wing, or flying with the wing raised."""
    plump, perched = rng.uniform(0.92, 1.12), rng.random() < 0.6
    wing, belly = darker(main, 0.13), lighter(main, 0.6)
    if perched:
        canvas.line([(-0.95, 0.88), (0.0, 0.82), (0.95, 0.9)], 0.11, WOOD)
        canvas.blob([(0.6, 0.84), (0.7, 0.6), (0.98, 0.56), (0.9, 0.78)], LEAF)
        for x in (-0.08, 0.14):
            canvas.line([(x, 0.5), (x, 0.8)], 0.07, BEAK)
    canvas.blob([(0.3, 0.1), (0.62, 0.2), (0.98, 0.42), (0.9, 0.58), (0.5, 0.52), (0.3, 0.4)], wing)
    body = [(-0.3, -0.35), (0.1, -0.28), (0.45, 0.1), (0.5, 0.38), (0.1, 0.64 * plump), (-0.36, 0.5), (-0.54, 0.0)]
    canvas.blob(body, main)
    canvas.blob([(-0.52, 0.02), (-0.25, 0.1), (-0.1, 0.4), (0.1, 0.6 * plump), (-0.34, 0.48)], belly, outlined=False)
    canvas.oval(-0.32, -0.4, 0.34, 0.33, main)
    canvas.shape([(-0.6, -0.5), (-0.6, -0.24), (-0.96, -0.34)], BEAK)
    eye(canvas, -0.42, -0.46, 0.085)
    if perched:
        canvas.blob([(-0.12, 0.0), (0.2, -0.04), (0.54, 0.24), (0.62, 0.42), (0.2, 0.42), (-0.08, 0.24)], wing)
    else:
        canvas.blob([(-0.1, 0.16), (-0.06, -0.3), (0.3, -0.85), (0.68, -0.9), (0.58, -0.35), (0.32, 0.2)], wing)


def _fish_coat(canvas: Canvas, main: Colour, tall: float, rng: np.random.Generator) -> None:
    pale = pale_mark(main, 0.6)
    if rng.random() < 0.5:
        for x in (-0.2, 0.1, 0.38):
            half = tall * (0.86 - abs(x) * 0.9)
            stripe = [(x - 0.05, -half), (x + 0.07, -half), (x + 0.1, 0), (x + 0.07, half), (x - 0.05, half)]
            canvas.blob(stripe, pale, outlined=False)
        return
    belly = [(-0.78, 0.14), (-0.1, 0.22), (0.4, 0.1), (0.2, tall * 0.66), (-0.2, tall * 0.93), (-0.58, tall * 0.68)]
    canvas.blob(belly, pale, outlined=False)


def fish(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A fish in profile, slim or tall, with stripes or a light belly, and a few bubbles."""
    fin, tall = darker(main, 0.14), rng.uniform(0.36, 0.6)
    fork = rng.uniform(0.78, 0.96)
    canvas.blob([(0.44, 0.0), (0.7, -0.28), (0.98, -0.46), (fork, 0.0), (0.98, 0.46), (0.7, 0.28)], fin)
    canvas.blob([(-0.24, -tall * 0.8), (0.05, -tall - 0.26), (0.42, -tall - 0.1), (0.36, -tall * 0.5)], fin)
    canvas.blob([(-0.05, tall * 0.8), (0.1, tall + 0.22), (0.34, tall + 0.12), (0.26, tall * 0.6)], fin)
    body = [(-0.85, 0.05), (-0.6, -tall * 0.72), (-0.1, -tall), (0.36, -tall * 0.55), (0.6, 0.0), (0.36, tall * 0.55)]
    canvas.blob([*body, (-0.1, tall), (-0.6, tall * 0.75)], main)
    _fish_coat(canvas, main, tall, rng)
    canvas.blob([(-0.2, 0.06), (0.1, -0.08), (0.18, 0.14), (0.02, 0.28)], fin)
    canvas.oval(-0.52, -0.1, 0.14, 0.14, WHITE)
    canvas.oval(-0.54, -0.1, 0.085, 0.09, INK, outlined=False)
    canvas.oval(-0.52, -0.135, 0.03, 0.03, WHITE, outlined=False)
    for _ in range(int(rng.integers(0, 4))):
        radius = rng.uniform(0.05, 0.09)
        canvas.oval(rng.uniform(-1.05, -0.75), rng.uniform(-0.8, -0.3), radius, radius, GLASS)


def butterfly(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """Four wings with spots and a dark edge, seen from above."""
    edge, spot = darker(main, 0.6), pale_mark(main, 0.7)
    wide, low, share = rng.uniform(0.88, 1.06), rng.uniform(0.85, 1.15), rng.uniform(0.78, 0.86)
    for side in (-1, 1):
        upper = [(0.06, -0.1), (0.3, -0.62), (0.72, -0.86), (0.98, -0.6), (0.84, -0.16), (0.4, 0.08)]
        lower = [(0.06, 0.02), (0.44, 0.06), (0.76, 0.22), (0.76, 0.6 * low), (0.46, 0.82 * low), (0.2, 0.56)]
        for wing, cx, cy in ((upper, 0.55, -0.37), (lower, 0.45, 0.38)):
            placed = [(side * wide * x, y) for x, y in wing]
            inner = [(side * wide * (cx + (x - cx) * share), cy + (y - cy) * share) for x, y in wing]
            canvas.blob(placed, edge)
            canvas.blob(inner, main, outlined=False)
        canvas.oval(side * wide * 0.68, -0.52, 0.12, 0.12, spot, outlined=False)
        canvas.oval(side * wide * 0.5, 0.44, 0.1, 0.11, spot, outlined=False)
        canvas.line([(0.0, -0.45), (side * 0.1, -0.75), (side * 0.28, -0.92)], 0.045, INK)
    canvas.oval(0, 0.02, 0.085, 0.5, INK, outlined=False)
    canvas.oval(0, -0.46, 0.12, 0.12, INK, outlined=False)


def _elephant_side(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    far, nail, ear = darker(main, 0.24), lighter(main, 0.6), mix(darker(main, 0.12), PINK, 0.16)
    canvas.shadow(0.05, 0.85)
    canvas.line([(0.84, -0.02), (0.96, 0.24), (0.92, 0.42)], 0.075, far)
    for x in (-0.08, 0.46):
        canvas.blob([(x - 0.15, 0.3), (x + 0.15, 0.3), (x + 0.15, 0.88), (x - 0.15, 0.88)], far)
    canvas.blob([(-0.3, -0.42), (0.3, -0.5), (0.78, -0.26), (0.88, 0.2), (0.7, 0.56), (0.0, 0.58), (-0.4, 0.4)], main)
    for x in (-0.24, 0.64):
        canvas.blob([(x - 0.17, 0.26), (x + 0.17, 0.26), (x + 0.16, 0.9), (x - 0.16, 0.9)], main)
        canvas.oval(x - 0.07, 0.86, 0.075, 0.055, nail, outlined=False)
        canvas.oval(x + 0.08, 0.86, 0.075, 0.055, nail, outlined=False)
    if rng.random() < 0.5:
        trunk = [(-0.6, 0.0), (-0.82, 0.3), (-0.86, 0.62), (-0.98, 0.7)]
    else:
        trunk = [(-0.6, 0.0), (-0.82, 0.18), (-1.0, -0.06), (-0.98, -0.42)]
    canvas.line(trunk, 0.25, darker(main, 0.3))
    canvas.line(trunk, 0.21, main)
    canvas.oval(-0.5, -0.22, 0.4, 0.42, main)
    canvas.blob([(-0.72, 0.1), (-0.58, 0.12), (-0.76, 0.36), (-0.86, 0.34)], CREAM)
    flap = [(-0.36, -0.52), (0.02, -0.62), (0.28, -0.3), (0.2, 0.12), (-0.02, 0.3), (-0.28, 0.08)]
    canvas.blob(flap, ear)
    eye(canvas, -0.62, -0.2, 0.085)


def _elephant_front(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    ear, nail = mix(main, PINK, 0.35), lighter(main, 0.6)
    canvas.shadow(0.0, 0.6)
    canvas.blob(mirrored([(0.0, -0.1), (0.4, 0.1), (0.52, 0.5), (0.46, 0.9), (0.0, 0.92)]), main)
    for side in (-1, 1):
        canvas.oval(side * 0.36, 0.82, 0.2, 0.13, main)
        canvas.oval(side * 0.36, 0.86, 0.13, 0.06, nail, outlined=False)
        flap = [(0.3, -0.66), (0.74, -0.84), (1.06, -0.5), (0.98, -0.04), (0.66, 0.2), (0.36, -0.02)]
        canvas.blob([(side * x, y) for x, y in flap], main)
        canvas.blob([(side * (x * 0.72 + 0.19), y * 0.7 - 0.1) for x, y in flap], ear, outlined=False)
    canvas.blob(mirrored([(0.0, -0.84), (0.36, -0.74), (0.5, -0.34), (0.38, 0.06), (0.0, 0.2)]), main)
    tip = rng.choice([-0.3, 0.3])
    trunk = [(0.0, -0.1), (0.0, 0.36), (tip * 0.35, 0.58), (tip, 0.6)]
    for side in (-1, 1):
        canvas.blob([(side * 0.2, 0.06), (side * 0.32, 0.02), (side * 0.34, 0.32), (side * 0.24, 0.3)], CREAM)
        eye(canvas, side * 0.27, -0.34, 0.095)
    canvas.line(trunk, 0.27, darker(main, 0.3))
    canvas.line(trunk, 0.225, main)


def elephant(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A big-eared elephant, from the side or sitting in front of us."""
    (_elephant_side if rng.random() < 0.6 else _elephant_front)(canvas, main, rng)


def _scutes(canvas: Canvas, points: Points, size: float, fill: Colour) -> None:
    for x, y in points:
        ring = [(x + size * dx, y + size * dy) for dx, dy in ((-1, 0), (-0.5, -0.9), (0.5, -0.9), (1, 0), (0.5, 0.9))]
        canvas.shape([*ring, (x - size * 0.5, y + size * 0.9)], fill, outlined=False)


def turtle(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A turtle with a domed, patterned shell, walking or looking up."""
    skin, mark = mix(lighter(main, 0.35), (226, 212, 150), 0.5), darker(main, 0.3)
    high, up = rng.uniform(-0.42, -0.22), rng.uniform(-0.2, 0.12)
    canvas.shadow(0.0, 0.85)
    canvas.blob([(0.7, 0.6), (1.0, 0.66), (1.06, 0.78), (0.72, 0.78)], skin)
    for x in (-0.36, 0.44):
        canvas.blob([(x - 0.2, 0.5), (x + 0.2, 0.5), (x + 0.2, 0.86), (x, 0.92), (x - 0.24, 0.86)], skin)
    canvas.blob([(-0.5, 0.42), (-0.72, up + 0.1), (-0.56, up), (-0.36, 0.2), (-0.3, 0.6), (-0.46, 0.7)], skin)
    canvas.oval(-0.74, up + 0.08, 0.29, 0.25, skin)
    eye(canvas, -0.8, up + 0.02, 0.085)
    canvas.line([(-0.98, up + 0.13), (-0.87, up + 0.21), (-0.72, up + 0.15)], 0.05, INK)
    dome = [(-0.58, 0.52), (-0.42, 0.0), (0.0, high), (0.4, high + 0.08), (0.76, 0.16), (0.86, 0.56), (0.14, 0.66)]
    canvas.blob(dome, main)
    _scutes(canvas, [(0.14, 0.06), (-0.26, 0.3), (0.54, 0.3)], 0.17, mark)
    canvas.line([(-0.56, 0.58), (0.14, 0.66), (0.84, 0.6)], 0.13, lighter(main, 0.3))


def snail(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A snail with a big coiled shell and eyes on stalks."""
    skin = mix(lighter(main, 0.6), (240, 222, 180), 0.5)
    radius, tall = rng.uniform(0.54, 0.62), rng.uniform(-0.36, -0.2)
    canvas.shadow(0.0, 0.9)
    for x in (-0.78, -0.5):
        canvas.line([(-0.62, 0.36), (x, tall)], 0.1, darker(skin, 0.12))
        eye(canvas, x, tall - 0.04, 0.1)
    body = [(-0.92, 0.36), (-0.72, 0.14), (-0.5, 0.24), (-0.36, 0.56), (0.4, 0.66), (1.0, 0.84), (0.6, 0.92)]
    canvas.blob([*body, (-0.6, 0.92), (-0.9, 0.78)], skin)
    canvas.line([(-0.86, 0.44), (-0.76, 0.54), (-0.6, 0.46)], 0.055, INK)
    cx, cy = 0.2, 0.72 - radius
    canvas.oval(cx, cy, radius, radius * 0.98, main)
    t = np.linspace(0.4, 11.6, 30)
    reach = radius * (0.1 + 0.72 * t / t[-1])
    coil = np.stack([cx + reach * np.cos(t), cy + reach * np.sin(t)], axis=1)
    canvas.line([(float(x), float(y)) for x, y in coil], 0.09, darker(main, 0.42))
