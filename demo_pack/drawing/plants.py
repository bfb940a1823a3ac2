"""Flower, tree, mushroom and apple, each in two or three kinds.

Each function takes the canvas, the main colour and a random generator, and draws its subject in the unit square.
Imports no styles, backgrounds or captions.
"""

from __future__ import annotations

import math

import numpy as np

from demo_pack.drawing.canvas import Canvas, Colour, darker, lighter, mirrored, mix
from demo_pack.drawing.palette import CREAM, LEAF, WOOD


def _tulip(canvas: Canvas, main: Colour, x: float) -> None:
    cup = [(0.0, -0.2), (0.34, -0.2), (0.44, -0.52), (0.4, -0.92), (0.2, -0.68)]
    canvas.blob([(x + px, py + 0.14) for px, py in mirrored([*cup, (0.0, -0.62)])], darker(main, 0.2))
    canvas.blob([(x + px, py) for px, py in mirrored([(0.0, -0.84), (0.22, -0.5), (0.18, -0.14), (0.0, -0.06)])], main)
    for side in (-1, 1):
        petal = [(0.06, -0.06), (0.36, -0.12), (0.46, -0.5), (0.4, -0.86), (0.22, -0.56)]
        canvas.blob([(x + side * px, py) for px, py in petal], main)


def _daisy(canvas: Canvas, main: Colour, x: float, rng: np.random.Generator) -> None:
    count, ring, start = int(rng.integers(5, 9)), rng.uniform(0.34, 0.4), rng.uniform(0, 1)
    for k in range(count):
        angle = start + 2 * math.pi * k / count
        petal = main if k % 2 else mix(main, lighter(main, 0.5), 0.35)
        canvas.oval(x + ring * math.cos(angle), -0.38 + ring * math.sin(angle), 0.31, 1.3 / count, petal, angle)
    centre = (246, 200, 60) if main[0] < 225 or main[2] > 120 or main[1] < 120 else (140, 88, 46)
    canvas.oval(x, -0.38, 0.2, 0.2, centre)


def _rose(canvas: Canvas, main: Colour, x: float) -> None:
    for angle in (0.3, 1.55, 2.8, 4.1, 5.3):
        canvas.oval(x + 0.26 * math.cos(angle), -0.4 + 0.26 * math.sin(angle), 0.3, 0.27, darker(main, 0.1), angle)
    canvas.oval(x, -0.42, 0.35, 0.34, main)
    t = np.linspace(0.5, 8.5, 20)
    coil = [(float(x + 0.03 * k * math.cos(k)), float(-0.42 + 0.03 * k * math.sin(k))) for k in t]
    canvas.line(coil, 0.06, darker(main, 0.4))


def flower(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A daisy, a tulip or a rose on a stem with two leaves."""
    lean, kind = rng.uniform(-0.14, 0.14), rng.random()
    canvas.shadow(0.0, 0.36)
    canvas.line([(lean, -0.2), (lean * 0.4, 0.4), (0, 0.92)], 0.085, darker(LEAF, 0.15))
    for side in (-1, 1):
        y = rng.uniform(0.5, 0.66)
        canvas.blob([(0, y + 0.2), (side * 0.2, y - 0.1), (side * 0.58, y - 0.22), (side * 0.38, y + 0.16)], LEAF)
    if kind < 0.3:
        _tulip(canvas, main, lean)
    elif kind < 0.75:
        _daisy(canvas, main, lean, rng)
    else:
        _rose(canvas, main, lean)


def _fir(canvas: Canvas, main: Colour, lean: float) -> None:
    for top, bottom, half in ((-0.1, 0.6, 0.72), (-0.5, 0.22, 0.58), (-0.98, -0.18, 0.42)):
        fir = [(lean, top), (lean + half, bottom), (lean, bottom + 0.08), (lean - half, bottom)]
        canvas.shape(fir, mix(main, darker(main, 0.3), (bottom + 0.2)))


def _poplar(canvas: Canvas, main: Colour) -> None:
    canvas.blob(mirrored([(0.0, -1.0), (0.3, -0.6), (0.42, 0.0), (0.3, 0.44), (0.0, 0.54)]), darker(main, 0.14))
    canvas.blob([(-0.04, -0.82), (0.14, -0.5), (0.14, 0.1), (-0.1, 0.34), (-0.28, 0.0), (-0.2, -0.5)], main,
                outlined=False)  # fmt: skip


def _crown(canvas: Canvas, main: Colour, lean: float, rng: np.random.Generator) -> None:
    crowns = ((-0.38, -0.14, 0.38), (0.38, -0.14, 0.38), (0.0, -0.08, 0.42), (-0.22, -0.48, 0.4), (0.24, -0.48, 0.38))
    for x, y, radius in crowns:
        canvas.oval(lean + x * rng.uniform(0.9, 1.2), y, radius, radius * 0.94, darker(main, 0.14))
    for x, y, radius in ((-0.2, -0.42, 0.32), (0.12, -0.56, 0.28), (0.28, -0.2, 0.26), (-0.36, -0.1, 0.24)):
        canvas.oval(lean + x, y, radius, radius * 0.9, main, outlined=False)
    for _ in range(4):
        x, y = rng.uniform(-0.4, 0.4), rng.uniform(-0.65, 0.05)
        canvas.oval(lean + x, y, 0.1, 0.085, lighter(main, 0.35), outlined=False)


def tree(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A round leafy tree, a fir or a poplar."""
    lean, kind = rng.uniform(-0.06, 0.06), rng.random()
    canvas.shadow(0.0, 0.55)
    trunk = [(-0.18, 0.94), (-0.1, 0.4), (lean - 0.09, -0.1), (lean + 0.09, -0.1), (0.1, 0.4), (0.18, 0.94)]
    canvas.blob(trunk, WOOD)
    if kind < 0.32:
        _fir(canvas, main, lean)
    elif kind < 0.5:
        _poplar(canvas, main)
    else:
        _crown(canvas, main, lean, rng)


def mushroom(canvas: Canvas, main: Colour, rng: np.random.Generator, small: bool = False) -> None:
    """A toadstool with a spotted cap, domed or pointed, sometimes with a small companion."""
    peak, wide = rng.uniform(-0.98, -0.62), rng.uniform(0.72, 0.9)
    if not small:
        canvas.shadow(0.0, 0.6)
    if not small and rng.random() < 0.4:
        mushroom(canvas.inset(0.66, 0.56, 0.38), main, rng, small=True)
    canvas.blob(mirrored([(0.0, -0.2), (0.2, -0.1), (0.2, 0.4), (0.32, 0.84), (0.0, 0.93)]), CREAM)
    canvas.blob(mirrored([(0.0, 0.0), (0.3, 0.0), (0.34, 0.16), (0.16, 0.2), (0.0, 0.16)]), darker(CREAM, 0.1))
    cap = [(0.0, peak), (wide * 0.55, peak + 0.18), (wide * 0.96, -0.22), (wide, 0.04), (wide * 0.6, 0.14), (0.0, 0.1)]
    canvas.blob(mirrored(cap), main)
    dot = darker(main, 0.35) if sum(main) > 660 else CREAM
    for x, y, r in ((-0.42, -0.22, 0.13), (0.04, -0.42, 0.15), (0.48, -0.16, 0.12), (0.1, -0.02, 0.085)):
        canvas.oval(x * wide, y, r, r * 0.86, dot, outlined=False)


def apple(canvas: Canvas, main: Colour, rng: np.random.Generator) -> None:
    """A shiny apple, round or tall, with a stalk and one or two leaves."""
    wide, low = rng.uniform(0.7, 0.84), rng.uniform(0.0, 0.08)
    canvas.shadow(0.0, 0.66)
    canvas.line([(0.0, -0.36), (0.05, -0.66), (0.16, -0.86)], 0.11, WOOD)
    body = [(0.0, -0.36), (wide * 0.5, -0.56), (wide, -0.2), (wide * 0.94, 0.4), (wide * 0.5, 0.88), (0.0, 0.8 + low)]
    canvas.blob(mirrored(body), main)
    shade = [(0.3, 0.76), (wide * 0.72, 0.36), (wide * 0.82, -0.16), (wide * 0.92, 0.2), (wide * 0.66, 0.68)]
    canvas.blob(shade, darker(main, 0.16), outlined=False)
    canvas.oval(0.0, -0.37, 0.2, 0.07, darker(main, 0.32), outlined=False)
    canvas.oval(-wide * 0.52, -0.14, 0.13, 0.22, lighter(main, 0.6), 0.4, outlined=False)
    for side in (1, -1) if rng.random() < 0.3 else (1,):
        leaf = [(0.06, -0.58), (0.24, -0.86), (0.6, -0.88), (0.46, -0.6)]
        canvas.blob([(side * x, y) for x, y in leaf], LEAF)
