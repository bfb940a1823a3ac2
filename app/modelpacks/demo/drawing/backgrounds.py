"""Six places where a subject can stand, painted on a supersampled picture before the subject."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from app.modelpacks.demo.drawing.canvas import Colour, mix

Background = Callable[[np.random.Generator, int, float], Image.Image]


def _gradient(size: int, top: Colour, bottom: Colour) -> Image.Image:
    rows = np.linspace(0, 1, size, dtype=np.float32)[:, None, None]
    blend = np.asarray(top, dtype=np.float32) * (1 - rows) + np.asarray(bottom, dtype=np.float32) * rows
    return Image.fromarray(np.broadcast_to(blend, (size, size, 3)).astype(np.uint8))


def _ground(rng: np.random.Generator, picture: Image.Image, horizon: float, colour: Colour) -> ImageDraw.ImageDraw:
    """Hilly ground from `horizon` (0 top to 1 bottom) downwards."""
    size = picture.width
    draw = ImageDraw.Draw(picture)
    phase, height = rng.uniform(0, 6.3), rng.uniform(0.005, 0.03)
    xs = np.linspace(0, 1, 24)
    ys = horizon + height * np.sin(xs * rng.uniform(3, 7) + phase)
    hill = [(float(x) * size, float(y) * size) for x, y in zip(xs, ys, strict=True)]
    draw.polygon([*hill, (size, size), (0, size)], fill=colour)
    return draw


def _clouds(rng: np.random.Generator, draw: ImageDraw.ImageDraw, size: int, fill: Colour, low: float) -> None:
    for _ in range(int(rng.integers(2, 4))):
        x, y, width = rng.uniform(0, 1) * size, rng.uniform(0.06, low) * size, rng.uniform(0.1, 0.16) * size
        for dx, dy, share in ((-0.8, 0.12, 0.6), (0.0, 0.0, 0.9), (0.8, 0.12, 0.65), (0.0, 0.25, 0.8)):
            rx, ry = width * share, width * share * 0.55
            cx, cy = x + dx * width, y + dy * width
            draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=fill)


def plain(rng: np.random.Generator, size: int, _horizon: float) -> Image.Image:
    """Paper, sometimes with a soft coloured wash behind the subject."""
    paper = (252, 249, 243)
    picture = Image.new("RGB", (size, size), paper)
    if rng.random() < 0.45:
        tint: Colour = tuple(int(v) for v in rng.integers(150, 245, 3))  # type: ignore[assignment]
        draw = ImageDraw.Draw(picture)
        cx, cy = rng.uniform(0.4, 0.6) * size, rng.uniform(0.4, 0.6) * size
        rx, ry = rng.uniform(0.33, 0.46) * size, rng.uniform(0.3, 0.42) * size
        draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=mix(paper, tint, 0.4))
        picture = picture.filter(ImageFilter.GaussianBlur(size / 14))
    return picture


def grass(rng: np.random.Generator, size: int, horizon: float) -> Image.Image:
    """A meadow with blades and a few small flowers under a pale sky."""
    picture = _gradient(size, (196, 226, 244), (240, 246, 232))
    green: Colour = mix((112, 178, 76), (88, 158, 84), float(rng.random()))
    draw = _ground(rng, picture, horizon, green)
    unit = size / 128
    for _ in range(70):
        x, y = rng.uniform(0, size), rng.uniform(horizon + 0.03, 1.05) * size
        tip = (x + rng.uniform(-3, 3) * unit, y - rng.uniform(5, 9) * unit)
        ink = mix(green, (52, 112, 50), float(rng.uniform(0.2, 0.9)))
        draw.line([(x, y), tip], fill=ink, width=round(1.4 * unit))
    for _ in range(int(rng.integers(0, 6))):
        x, y, radius = rng.uniform(0, size), rng.uniform(horizon + 0.06, 1) * size, 2 * unit
        petal = [(250, 246, 240), (246, 214, 80), (236, 130, 160)][int(rng.integers(3))]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=petal)
    return picture


def snow(rng: np.random.Generator, size: int, horizon: float) -> Image.Image:
    """White ground, far firs and falling flakes."""
    picture = _gradient(size, (158, 184, 212), (208, 222, 236))
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(3, 7))):
        x, height = rng.uniform(0, size), rng.uniform(0.14, 0.3) * size
        base = horizon * size + 0.05 * size
        fir = [(x, base - height), (x + height * 0.3, base), (x - height * 0.3, base)]
        draw.polygon(fir, fill=mix((94, 126, 140), (150, 178, 196), float(rng.random())))
    draw = _ground(rng, picture, horizon, (244, 247, 252))
    for _ in range(26):
        x, y, radius = rng.uniform(0, size), rng.uniform(0, horizon) * size, rng.uniform(0.9, 1.7) * size / 128
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(252, 253, 255))
    return picture


def sky(rng: np.random.Generator, size: int, _horizon: float) -> Image.Image:
    """Blue sky with clouds and a low green hill."""
    picture = _gradient(size, (76, 152, 226), (176, 218, 246))
    draw = ImageDraw.Draw(picture)
    _clouds(rng, draw, size, (250, 252, 255), 0.5)
    _ground(rng, picture, rng.uniform(0.84, 0.92), (126, 180, 100))
    return picture


def night(rng: np.random.Generator, size: int, horizon: float) -> Image.Image:
    """Dark blue sky with moon and stars over dark ground."""
    picture = _gradient(size, (26, 32, 74), (62, 72, 128))
    draw = ImageDraw.Draw(picture)
    for _ in range(22):
        x, y, radius = rng.uniform(0, size), rng.uniform(0, horizon) * size, rng.uniform(0.7, 1.3) * size / 128
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(250, 244, 206))
    x, y, radius = rng.choice([0.16, 0.84]) * size, rng.uniform(0.12, 0.2) * size, 0.085 * size
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(252, 240, 188))
    _ground(rng, picture, horizon, (44, 62, 78))
    return picture


def beach(rng: np.random.Generator, size: int, horizon: float) -> Image.Image:
    """Sand, a strip of sea and a warm sky with the sun."""
    picture = _gradient(size, (132, 204, 236), (246, 232, 206))
    draw = ImageDraw.Draw(picture)
    x, y, radius = rng.choice([0.18, 0.82]) * size, rng.uniform(0.12, 0.22) * size, 0.075 * size
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(254, 224, 96))
    draw.rectangle((0, (horizon - 0.14) * size, size, (horizon + 0.06) * size), fill=(46, 146, 186))
    _ground(rng, picture, horizon, (238, 210, 154))
    return picture


BACKGROUND_PAINTERS: dict[str, Background] = {
    "plain": plain,
    "grass": grass,
    "snow": snow,
    "sky": sky,
    "night": night,
    "beach": beach,
}
