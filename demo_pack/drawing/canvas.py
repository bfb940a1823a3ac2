"""Smooth coloured shapes on a supersampled picture, with the mask of the pixels that they cover.

Shapes are given in the subject's own unit square (x right, y down, -1 to 1, feet at y = 0.9); a
`Placement` maps that square to the picture. Imports no subjects, styles or captions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLING = 3

Colour = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

SHADOW: Colour = (70, 66, 90)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` (0 to 1) of the way from `a` to `b`."""
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float) -> Colour:
    """`colour` moved `share` (0 to 1) of the way towards a warm black."""
    return mix(colour, (35, 28, 38), share)


def lighter(colour: Colour, share: float) -> Colour:
    """`colour` moved `share` (0 to 1) of the way towards white."""
    return mix(colour, (255, 253, 248), share)


def pale_mark(colour: Colour, share: float) -> Colour:
    """A marking lighter than `colour`, or a soft grey where `colour` is nearly white."""
    return darker(colour, 0.22) if sum(colour) > 660 else lighter(colour, share)


def mirrored(points: Points) -> list[tuple[float, float]]:
    """A right half (from top to bottom) completed with its mirror image on the left; the axis is not repeated."""
    return [*points, *((-x, y) for x, y in reversed(points) if x)]


def smooth(points: Points, samples: int = 7) -> NDArray[np.float64]:
    """A closed Catmull-Rom curve through `points`.

    **Shapes**: returns (len(points) * samples, 2).
    """
    p1 = np.asarray(points, dtype=np.float64)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    t = (np.arange(samples) / samples)[None, :, None]
    p0, p1, p2, p3 = p0[:, None], p1[:, None], p2[:, None], p3[:, None]
    cubic = (3 * (p1 - p2) + p3 - p0) * t**3
    square = (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
    return np.asarray(0.5 * (2 * p1 + (p2 - p0) * t + square + cubic)).reshape(-1, 2)


@dataclass(frozen=True)
class Placement:
    """Where the unit square lies: centre and scale in picture pixels, mirrored or not, turned by `angle` radians."""

    x: float
    y: float
    scale: float
    flip: bool = False
    angle: float = 0.0
    stretch: float = 1.0

    def apply(self, points: NDArray[np.float64]) -> list[tuple[float, float]]:
        """Points of the unit square in picture pixels."""
        x = points[:, 0] * (-self.stretch if self.flip else self.stretch)
        y = points[:, 1] / self.stretch
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        px = self.x + self.scale * (x * cos - y * sin)
        py = self.y + self.scale * (x * sin + y * cos)
        return list(zip(px.tolist(), py.tolist(), strict=True))


class Canvas:
    """Draws on `picture` in place and collects the subject's `mask`; outlines are `outline` pixels wide."""

    def __init__(self, picture: Image.Image, placement: Placement, outline: float) -> None:
        self.picture = picture
        self.mask = Image.new("L", picture.size, 0)
        self.placement = placement
        self.outline = outline
        self._paint = ImageDraw.Draw(picture)
        self._cover = ImageDraw.Draw(self.mask)

    def inset(self, x: float, y: float, size: float) -> Canvas:
        """The same picture with the unit square moved to (x, y) and scaled by `size`."""
        ((px, py),) = self.placement.apply(np.array([[x, y]], dtype=np.float64))
        placement = replace(self.placement, x=px, y=py, scale=self.placement.scale * size)
        inner = Canvas(self.picture, placement, self.outline)
        inner.mask, inner._cover = self.mask, self._cover
        return inner

    def shadow(self, x: float, half: float, y: float = 0.9) -> None:
        """A soft shadow on the ground, `half` units to either side of `x`."""
        ((cx, cy),) = self.placement.apply(np.array([[x, y]], dtype=np.float64))
        rx, ry, soft = half * self.placement.scale, 0.11 * self.placement.scale, 0.05 * self.placement.scale
        veil = Image.new("L", (round(2 * (rx + 3 * soft)), round(2 * (ry + 3 * soft))), 0)
        mx, my = veil.width / 2, veil.height / 2
        ImageDraw.Draw(veil).ellipse((mx - rx, my - ry, mx + rx, my + ry), fill=92)
        box = (round(cx - mx), round(cy - my), round(cx - mx) + veil.width, round(cy - my) + veil.height)
        self.picture.paste(SHADOW, box, veil.filter(ImageFilter.BoxBlur(soft)))

    def shape(self, points: Points, fill: Colour, outlined: bool = True) -> None:
        """A filled polygon with straight edges."""
        self._fill(np.asarray(points, dtype=np.float64), fill, outlined)

    def blob(self, points: Points, fill: Colour, outlined: bool = True) -> None:
        """A filled smooth closed curve through `points`."""
        self._fill(smooth(points), fill, outlined)

    def oval(
        self, x: float, y: float, rx: float, ry: float, fill: Colour, turn: float = 0.0, outlined: bool = True
    ) -> None:
        """A filled ellipse, turned by `turn` radians."""
        t = np.linspace(0, 2 * math.pi, 28, endpoint=False)
        ex, ey = rx * np.cos(t), ry * np.sin(t)
        cos, sin = math.cos(turn), math.sin(turn)
        self._fill(np.stack([x + ex * cos - ey * sin, y + ex * sin + ey * cos], axis=1), fill, outlined)

    def line(self, points: Points, width: float, fill: Colour) -> None:
        """An open line with round ends, `width` units wide."""
        placed = self.placement.apply(np.asarray(points, dtype=np.float64))
        pixels = max(1, round(width * self.placement.scale))
        for draw, ink in ((self._paint, fill), (self._cover, 255)):
            draw.line(placed, fill=ink, width=pixels, joint="curve")
        radius = pixels / 2
        for x, y in (placed[0], placed[-1]):
            box = (x - radius, y - radius, x + radius, y + radius)
            self._paint.ellipse(box, fill=fill)
            self._cover.ellipse(box, fill=255)

    def _fill(self, points: NDArray[np.float64], fill: Colour, outlined: bool) -> None:
        placed = self.placement.apply(points)
        self._paint.polygon(placed, fill=fill)
        self._cover.polygon(placed, fill=255)
        if outlined and self.outline > 0:
            width = max(1, round(self.outline))
            self._paint.line([*placed, placed[0]], fill=darker(fill, 0.42), width=width)
