"""Brush strokes: repaints a picture with short thick lines in its own colours.

**Shapes**: picture (H, W, 3), flow (H, W), float32. Imports no styles and no subjects.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.float32]

OVERSAMPLING = 2
SPACING, LENGTH, WIDTH = 4.4, 9.5, 4.4


def brushed(rng: np.random.Generator, picture: Array, flow: Array, scale: float) -> Array:
    """`picture` in strokes along the angles of `flow` (radians), `scale` pixels to a pixel of a 128-pixel picture."""
    height, width = picture.shape[:2]
    shown = Image.fromarray((picture * 255).astype(np.uint8))
    sheet = shown.resize((width * OVERSAMPLING, height * OVERSAMPLING), Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(sheet)
    rows, columns = round(height / scale / SPACING), round(width / scale / SPACING)
    order = rng.permutation(rows * columns)
    xs = (order % columns + rng.uniform(0, 1, len(order))) * (width / columns)
    ys = (order // columns + rng.uniform(0, 1, len(order))) * (height / rows)
    ix, iy = np.minimum(xs.astype(int), width - 1), np.minimum(ys.astype(int), height - 1)
    shade = rng.normal(1, 0.022, (len(order), 1))
    colours = np.clip(picture[iy, ix] * shade * 255, 0, 255).astype(int).tolist()
    angles = 0.5 + flow[iy, ix] * 0.7
    dx, dy = np.cos(angles) * LENGTH / 2 * scale, np.sin(angles) * LENGTH / 2 * scale
    ends = (np.stack([xs - dx, ys - dy, xs + dx, ys + dy], axis=1) * OVERSAMPLING).tolist()
    thick = round(WIDTH * scale * OVERSAMPLING)
    for end, colour in zip(ends, colours, strict=True):
        draw.line(end, fill=tuple(colour), width=thick)
    return np.asarray(sheet.reduce(OVERSAMPLING)).astype(np.float32) / np.float32(255)
