"""Four ways to finish a drawing: watercolor, pencil, oil and flat.

Each takes the plain picture and its subject mask as arrays and gives a picture of the same size.
**Shapes**: picture (H, W, 3) and mask (H, W), float32 from 0 to 1. Knows nothing of subjects or captions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.float32]
Style = Callable[[np.random.Generator, Array, Array], Array]

PAPER = np.array([0.985, 0.972, 0.945], dtype=np.float32)


def pixels(image: Image.Image) -> Array:
    """The picture's numbers as they are, in float32."""
    return np.asarray(image).astype(np.float32)


def field(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Smooth noise of about unit variance with `cells` bumps across."""
    grid = rng.standard_normal((cells, cells)).astype(np.float32)
    return pixels(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def clipped(values: Array) -> Array:
    """Values limited to 0 to 1."""
    limited: Array = np.clip(values, 0, 1).astype(np.float32)
    return limited


def blur(values: Array, radius: float) -> Array:
    """Gaussian blur of a single plane, `radius` in pixels."""
    plane = Image.fromarray(np.clip(values * 255, 0, 255).astype(np.uint8))
    blurred = plane.filter(ImageFilter.GaussianBlur(radius))
    return pixels(blurred) / np.float32(255)


def warp(picture: Array, dx: Array, dy: Array) -> Array:
    """`picture` sampled bilinearly at (x + dx, y + dy), displacements in pixels."""
    size = picture.shape[0]
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    x, y = np.clip(xs + dx, 0, size - 1.001), np.clip(ys + dy, 0, size - 1.001)
    x0, y0 = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    top = picture[y0, x0] * (1 - fx) + picture[y0, x0 + 1] * fx
    bottom = picture[y0 + 1, x0] * (1 - fx) + picture[y0 + 1, x0 + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, dtype=np.float32)


def _volume(mask: Array, strength: float) -> Array:
    """Light from the upper left on the subject: a factor near 1 for each pixel."""
    step = mask.shape[0] // 28
    soft = blur(mask, mask.shape[0] / 32)
    slope = np.roll(soft, (step, step), (0, 1)) - np.roll(soft, (-step, -step), (0, 1))
    return np.asarray(1 + strength * slope * mask, dtype=np.float32)[..., None]


def _grey(picture: Array) -> Array:
    return np.asarray(picture @ np.array([0.3, 0.59, 0.11], dtype=np.float32))


def watercolor(rng: np.random.Generator, picture: Array, mask: Array) -> Array:
    """Pigment that pools and bleeds, pale towards an uneven painted edge, on warm paper."""
    size = picture.shape[0]
    dx, dy = field(rng, size, 9) * 1.3, field(rng, size, 9) * 1.3
    stacked = warp(np.concatenate([picture, mask[..., None]], axis=2), dx, dy)
    picture, mask = stacked[..., :3], stacked[..., 3]
    light = picture * _volume(mask, 0.22)
    pools = field(rng, size, 5) * 0.09 + field(rng, size, 11) * 0.05
    ys, xs = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    margin = np.clip((1.02 - np.maximum(abs(xs), abs(ys)) + field(rng, size, 8) * 0.045) * 9, 0, 1)
    pigment = mask * (0.9 + pools) + (1 - mask) * (0.68 + 1.5 * pools) * margin
    rim = np.clip(mask * (1 - blur(mask, 2.2)) * 2, 0, 1)
    washed = PAPER + (light - PAPER) * np.clip(pigment, 0, 1)[..., None]
    grain = 1 + 0.012 * field(rng, size, 48)
    return clipped(washed * (1 - 0.2 * rim[..., None]) * grain[..., None])


def pencil(rng: np.random.Generator, picture: Array, mask: Array) -> Array:
    """Grey contour lines and slanted hatching over a light tint of the colours."""
    size = picture.shape[0]
    picture = picture * _volume(mask, 0.2)
    grey = _grey(picture)
    gy, gx = np.gradient(blur(grey, 0.7))
    lines = np.clip(np.hypot(gx, gy) * 5.5 - 0.18, 0, 1)
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    hatch = 0.5 + 0.5 * np.sin((xs + ys * 0.8) * (2 * np.pi / 6.5) + field(rng, size, 6) * 0.7)
    tint = 0.62 * mask + 0.38 * (1 - mask)
    tone = (1 - grey) * (0.06 + 0.24 * hatch * (0.4 + 0.6 * mask))
    tinted = PAPER + (picture - PAPER) * tint[..., None]
    shaded = tinted * (1 - tone - 0.62 * lines)[..., None]
    return clipped(shaded * (1 + 0.008 * field(rng, size, 48))[..., None])


def oil(rng: np.random.Generator, picture: Array, mask: Array) -> Array:
    """Saturated paint in short strokes with a little relief."""
    size = picture.shape[0]
    picture = picture * _volume(mask, 0.34)
    picture = warp(picture, field(rng, size, 22) * 0.8, field(rng, size, 22) * 0.8)
    grey = _grey(picture)[..., None]
    rich = grey + (picture - grey) * 1.12
    image = Image.fromarray((np.clip(rich, 0, 1) * 255).astype(np.uint8)).filter(ImageFilter.MedianFilter(5))
    strokes = pixels(image) / np.float32(255)
    bristles = rng.standard_normal((10, 26)).astype(np.float32)
    relief = pixels(Image.fromarray(bristles).resize((size, size), Image.Resampling.BICUBIC))
    relief = warp(relief[..., None], field(rng, size, 4) * 5, field(rng, size, 4) * 5)
    tone = field(rng, size, 9)[..., None] * 0.03
    return clipped(strokes * (0.96 + 0.028 * relief + tone))


def flat(_rng: np.random.Generator, picture: Array, _mask: Array) -> Array:
    """Clean even colours, as drawn."""
    return clipped(picture)


STYLE_FINISHES: dict[str, Style] = {"watercolor": watercolor, "pencil": pencil, "oil": oil, "flat": flat}
STYLE_OUTLINES = {"watercolor": 0.014, "pencil": 0.022, "oil": 0.0, "flat": 0.012}
