"""The four styles of a drawing: watercolor, pencil, oil and flat.

Each function takes the plain picture and its subject mask as arrays and returns a picture of the same size; strokes and
grain scale with the smaller side, so a picture looks the same at every resolution.
**Shapes**: picture (H, W, 3) and mask (H, W), float32 from 0 to 1. Imports no subjects and no captions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from demo_pack.drawing.strokes import brushed

Array = NDArray[np.float32]
Style = Callable[[np.random.Generator, Array, Array], Array]

PAPER = np.array([0.985, 0.972, 0.945], dtype=np.float32)
LUMA = np.array([0.3, 0.59, 0.11], dtype=np.float32)


def pixels(image: Image.Image) -> Array:
    """The picture's values, unscaled, in float32."""
    return np.asarray(image).astype(np.float32)


def unit(shape: tuple[int, ...]) -> float:
    """The scale relative to a 128-pixel picture."""
    return min(shape[0], shape[1]) / 128


def field(rng: np.random.Generator, shape: tuple[int, ...], cells: int) -> Array:
    """Smooth noise of about unit variance with `cells` bumps across the smaller side."""
    height, width = shape[0], shape[1]
    rows, columns = round(cells * height / min(height, width)), round(cells * width / min(height, width))
    grid = rng.standard_normal((rows, columns)).astype(np.float32)
    return pixels(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


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
    height, width = picture.shape[:2]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = np.clip(xs + dx, 0, width - 1.001), np.clip(ys + dy, 0, height - 1.001)
    x0, y0 = x.astype(np.int32), y.astype(np.int32)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    top = picture[y0, x0] * (1 - fx) + picture[y0, x0 + 1] * fx
    bottom = picture[y0 + 1, x0] * (1 - fx) + picture[y0 + 1, x0 + 1] * fx
    return np.asarray(top * (1 - fy) + bottom * fy, dtype=np.float32)


def _volume(mask: Array, strength: float) -> Array:
    """Light from the upper left on the subject: a factor near 1 for each pixel."""
    step = max(1, round(4.5 * unit(mask.shape)))
    soft = np.pad(blur(mask, 4 * unit(mask.shape)), step, mode="edge")
    slope = soft[: -2 * step, : -2 * step] - soft[2 * step :, 2 * step :]
    return np.asarray(1 + strength * slope * mask, dtype=np.float32)[..., None]


def _saturated(picture: Array, share: float) -> Array:
    grey = np.asarray(picture @ LUMA)[..., None]
    return np.asarray(grey + (picture - grey) * share, dtype=np.float32)


def _painted_edge(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """The share of the wash at each pixel: 1 inside, falling to 0 at an uneven margin."""
    height, width = shape[0], shape[1]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    inside = np.minimum(np.minimum(xs, width - 1 - xs), np.minimum(ys, height - 1 - ys)) / min(height, width)
    return np.asarray(np.clip((inside * 2 - 0.03 + field(rng, shape, 7) * 0.035) * 14, 0, 1), dtype=np.float32)


def watercolor(rng: np.random.Generator, picture: Array, mask: Array) -> Array:
    """Pigment that pools and bleeds, with dark rims, towards an uneven painted edge on warm paper."""
    shape, scale = picture.shape, unit(picture.shape)
    dx, dy = field(rng, shape, 9) * 0.9 * scale, field(rng, shape, 9) * 0.9 * scale
    stacked = warp(np.concatenate([picture, mask[..., None]], axis=2), dx, dy)
    picture, mask = stacked[..., :3], stacked[..., 3]
    light = _saturated(picture, 1.14) * _volume(mask, 0.24)
    pools = field(rng, shape, 5) * 0.085 + field(rng, shape, 11) * 0.05
    margin = _painted_edge(rng, shape)
    pigment = mask * (0.95 + pools) + (1 - mask) * (0.8 + 1.5 * pools) * margin
    washed = PAPER + (light - PAPER) * np.clip(pigment, 0, 1.08)[..., None]
    rim = np.clip(mask * (1 - blur(mask, 2.2 * scale)) * 2, 0, 1)
    pooled = 0.2 * rim + 0.14 * np.clip(4 * margin * (1 - margin), 0, 1) * (1 - mask) * (1 - light @ LUMA)
    grain = 1 + 0.01 * field(rng, shape, 40)
    return clipped(washed * (1 - pooled[..., None]) * grain[..., None])


def pencil(rng: np.random.Generator, picture: Array, mask: Array) -> Array:
    """Soft contour lines and slanted hatching over a light tint of the colours."""
    shape, scale = picture.shape, unit(picture.shape)
    picture = picture * _volume(mask, 0.2)
    grey = np.asarray(picture @ LUMA)
    gy, gx = np.gradient(blur(grey, 0.9 * scale))
    lines = np.clip(np.hypot(gx, gy) * 4.4 * scale - 0.14, 0, 0.8)
    height, width = shape[0], shape[1]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    phase = (xs + ys * 0.8) * np.float32(2 * np.pi / (9.2 * scale)) + field(rng, shape, 6) * 0.6
    hatch = 0.5 + 0.5 * np.sin(phase)
    tint = 0.42 + 0.32 * mask - 0.16 * (hatch - 0.5)
    tone = (1 - grey) * (0.05 + 0.15 * hatch * (0.45 + 0.55 * mask))
    tinted = PAPER + (_saturated(picture, 1.1) - PAPER) * tint[..., None]
    shaded = tinted * (1 - tone - 0.5 * lines)[..., None]
    return clipped(shaded * (1 + 0.006 * field(rng, shape, 40))[..., None])


def oil(rng: np.random.Generator, picture: Array, mask: Array) -> Array:
    """Saturated paint in visible brush strokes with a little relief."""
    shape, scale = picture.shape, unit(picture.shape)
    rich = np.clip(_saturated(picture, 1.2) * _volume(mask, 0.36), 0, 1)
    rich = warp(rich, field(rng, shape, 20) * 0.7 * scale, field(rng, shape, 20) * 0.7 * scale)
    flow = field(rng, shape, 4)
    strokes = brushed(rng, rich, flow, scale)
    gy, gx = np.gradient(blur(np.asarray(rich @ LUMA), 1.2 * scale))
    detail = np.clip(blur(np.clip(np.hypot(gx, gy) * 7 * scale, 0, 1), 1.6 * scale) * 2.4, 0, 1)
    soft = blur(mask, 3 * scale)
    rim = 4 * soft * (1 - soft)
    keep = np.clip(0.15 + 0.2 * mask + 0.6 * rim + 0.7 * detail * soft + 0.4 * detail, 0, 0.92)[..., None]
    return clipped(strokes + (rich - strokes) * keep)


def flat(_rng: np.random.Generator, picture: Array, _mask: Array) -> Array:
    """Clean even colours, as drawn."""
    return clipped(picture)


STYLE_FINISHES: dict[str, Style] = {"watercolor": watercolor, "pencil": pencil, "oil": oil, "flat": flat}
STYLE_OUTLINES = {"watercolor": 0.006, "pencil": 0.011, "oil": 0.0, "flat": 0.009}
