"""The six backgrounds, painted on a supersampled picture before the subject.

Sizes scale with the smaller side of the picture. Imports no subjects and no styles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from demo_pack.drawing.canvas import Colour, mix


@dataclass(frozen=True)
class Place:
    """The picture to fill: its size, where the ground begins (0 top to 1 bottom), and whether paper is tinted."""

    width: int
    height: int
    horizon: float
    tinted: bool

    @property
    def side(self) -> int:
        """The smaller side."""
        return min(self.width, self.height)


Background = Callable[[np.random.Generator, Place], Image.Image]
Draw = ImageDraw.ImageDraw
TINTS: tuple[Colour, ...] = (
    (150, 196, 226), (176, 214, 160), (244, 206, 140), (236, 170, 176), (190, 172, 220), (160, 206, 204),
)  # fmt: skip


def _gradient(place: Place, top: Colour, bottom: Colour) -> Image.Image:
    rows = np.linspace(0, 1, place.height, dtype=np.float32)[:, None, None]
    blend = np.asarray(top, dtype=np.float32) * (1 - rows) + np.asarray(bottom, dtype=np.float32) * rows
    return Image.fromarray(np.broadcast_to(blend, (place.height, place.width, 3)).astype(np.uint8))


def _disc(draw: Draw, x: float, y: float, radius: float, fill: Colour) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)


def _hills(rng: np.random.Generator, draw: Draw, place: Place, horizon: float, colour: Colour, high: float) -> None:
    """Rolling ground from `horizon` downwards, its waves up to `high` of the height."""
    phase, height, bends = rng.uniform(0, 6.3), rng.uniform(0.2, 1) * high, rng.uniform(3, 7)
    xs = np.linspace(0, 1, 24)
    ys = horizon + height * np.sin(xs * bends + phase)
    hill = [(float(x) * place.width, float(y) * place.height) for x, y in zip(xs, ys, strict=True)]
    draw.polygon([*hill, (place.width, place.height), (0, place.height)], fill=colour)


def _clouds(rng: np.random.Generator, draw: Draw, place: Place, fill: Colour, low: float) -> None:
    for _ in range(int(rng.integers(2, 4))):
        x, y = rng.uniform(0, 1) * place.width, rng.uniform(0.06, low) * place.height
        width = rng.uniform(0.1, 0.16) * place.side
        for dx, dy, share in ((-0.8, 0.12, 0.6), (0.0, 0.0, 0.9), (0.8, 0.12, 0.65), (0.0, 0.25, 0.8)):
            rx, ry = width * share, width * share * 0.55
            cx, cy = x + dx * width, y + dy * width
            draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=fill)


def plain(rng: np.random.Generator, place: Place) -> Image.Image:
    """Paper, sometimes with a soft coloured wash behind the subject."""
    paper = (252, 249, 243)
    picture = Image.new("RGB", (place.width // 4, place.height // 4), paper)
    tint = TINTS[int(rng.integers(len(TINTS)))]
    spread = rng.uniform(0.36, 0.47, 2)
    if place.tinted:
        cx, cy = picture.width / 2, picture.height / 2
        rx, ry = spread[0] * picture.width, spread[1] * picture.height
        ImageDraw.Draw(picture).ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=mix(paper, tint, 0.52))
        picture = picture.filter(ImageFilter.GaussianBlur(place.side / 56))
    return picture.resize((place.width, place.height), Image.Resampling.BILINEAR)


def grass(rng: np.random.Generator, place: Place) -> Image.Image:
    """A meadow with blades and a few small flowers under a pale sky."""
    picture = _gradient(place, (178, 218, 244), (240, 246, 232))
    draw, unit = ImageDraw.Draw(picture), place.side / 128
    _hills(rng, draw, place, place.horizon - 0.05, (160, 204, 140), 0.05)
    green: Colour = mix((118, 184, 80), (92, 164, 86), float(rng.random()))
    _hills(rng, draw, place, place.horizon, green, 0.03)
    for _ in range(40):
        x, y = rng.uniform(0, place.width), rng.uniform(place.horizon + 0.05, 1.05) * place.height
        tip = (x + rng.uniform(-3, 3) * unit, y - rng.uniform(6, 10) * unit)
        ink = mix(green, (56, 120, 54), float(rng.uniform(0.2, 0.75)))
        draw.line([(x, y), tip], fill=ink, width=round(1.9 * unit))
    for _ in range(int(rng.integers(0, 6))):
        x, y = rng.uniform(0, place.width), rng.uniform(place.horizon + 0.06, 1) * place.height
        petal = [(250, 246, 240), (246, 214, 80), (236, 130, 160)][int(rng.integers(3))]
        _disc(draw, x, y, 2.4 * unit, petal)
    return picture


def snow(rng: np.random.Generator, place: Place) -> Image.Image:
    """White ground, far firs and falling flakes."""
    picture = _gradient(place, (146, 178, 214), (206, 222, 238))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(3, 7))):
        x, height = rng.uniform(0, place.width), rng.uniform(0.18, 0.34) * place.side
        base = place.horizon * place.height + 0.05 * place.side
        fir = [(x, base - height), (x + height * 0.3, base), (x - height * 0.3, base)]
        draw.polygon(fir, fill=mix((94, 126, 140), (150, 178, 196), float(rng.random())))
    _hills(rng, draw, place, place.horizon, (242, 246, 252), 0.03)
    for _ in range(20):
        x, y = rng.uniform(0, place.width), rng.uniform(0, place.horizon) * place.height
        _disc(draw, x, y, rng.uniform(1.1, 1.9) * place.side / 128, (252, 253, 255))
    return picture


def sky(rng: np.random.Generator, place: Place) -> Image.Image:
    """Blue sky with clouds and a low green hill."""
    picture = _gradient(place, (84, 160, 232), (184, 222, 248))
    draw = ImageDraw.Draw(picture)
    _clouds(rng, draw, place, (250, 252, 255), 0.5)
    _hills(rng, draw, place, rng.uniform(0.8, 0.87), (130, 186, 102), 0.03)
    return picture


def night(rng: np.random.Generator, place: Place) -> Image.Image:
    """Dark blue sky with moon and stars over dark ground."""
    picture = _gradient(place, (26, 34, 82), (70, 82, 146))
    draw, unit = ImageDraw.Draw(picture), place.side / 128
    for _ in range(16):
        x, y = rng.uniform(0, place.width), rng.uniform(0, place.horizon) * place.height
        _disc(draw, x, y, rng.uniform(0.9, 1.6) * unit, (250, 244, 206))
    x, y = rng.choice([0.15, 0.85]) * place.width, rng.uniform(0.12, 0.2) * place.height
    _disc(draw, x, y, 0.12 * place.side, (66, 74, 124))
    _disc(draw, x, y, 0.09 * place.side, (252, 240, 188))
    _hills(rng, draw, place, place.horizon, (52, 76, 96), 0.03)
    return picture


def beach(rng: np.random.Generator, place: Place) -> Image.Image:
    """Sand, a strip of sea and a warm sky with the sun."""
    picture = _gradient(place, (128, 206, 240), (250, 236, 206))
    draw, horizon = ImageDraw.Draw(picture), place.horizon
    x, y = rng.choice([0.16, 0.84]) * place.width, rng.uniform(0.12, 0.22) * place.height
    _disc(draw, x, y, 0.085 * place.side, (254, 226, 104))
    top, bottom = (horizon - 0.14) * place.height, (horizon + 0.06) * place.height
    draw.rectangle((0, top, place.width, bottom), fill=(44, 148, 190))
    _hills(rng, draw, place, horizon - 0.015, (226, 240, 240), 0.02)
    _hills(rng, draw, place, horizon + 0.015, (240, 214, 160), 0.02)
    return picture


BACKGROUND_PAINTERS: dict[str, Background] = {
    "plain": plain,
    "grass": grass,
    "snow": snow,
    "sky": sky,
    "night": night,
    "beach": beach,
}
