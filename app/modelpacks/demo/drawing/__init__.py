"""The drawn world: small captioned pictures made by procedure, the only teacher of the demo pack.

Picture `index` of `seed` is a pure function of the two. Knows nothing of models or training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from app.modelpacks.demo.drawing.animals import HEADS, draw_animal
from app.modelpacks.demo.drawing.backgrounds import BACKGROUND_PAINTERS
from app.modelpacks.demo.drawing.canvas import SUPERSAMPLING, Canvas, Colour, Placement, darker, mix
from app.modelpacks.demo.drawing.captions import captions
from app.modelpacks.demo.drawing.styles import STYLE_FINISHES, STYLE_OUTLINES, pixels
from app.modelpacks.demo.drawing.things import PAINTERS
from app.modelpacks.demo.drawing.world import (
    BACKGROUND_WEIGHTS,
    CLASSES,
    COLOURS,
    STYLE_WEIGHTS,
    SUBJECTS,
    body_colour,
)

__all__ = ["CLASSES", "COLOURS", "Drawing", "Scene", "draw", "draw_scene", "scene"]


@dataclass(frozen=True)
class Scene:
    """What a drawing shows."""

    class_name: str
    colour: str
    style: str
    background: str


@dataclass(frozen=True)
class Drawing:
    """A finished picture, what it shows and several captions for it."""

    image: Image.Image
    captions: tuple[str, ...]
    class_name: str
    colour: str
    style: str
    background: str


def _pick(rng: np.random.Generator, weights: dict[str, float]) -> str:
    shares = np.array(list(weights.values()))
    return str(rng.choice(list(weights), p=shares / shares.sum()))


def scene(rng: np.random.Generator) -> Scene:
    """A random scene with the world's weights."""
    class_name = _pick(rng, {name: subject.weight for name, subject in SUBJECTS.items()})
    subject = SUBJECTS[class_name]
    if rng.random() < subject.natural_share:
        colour = str(rng.choice(subject.natural))
    else:
        colour = str(rng.choice([name for name in COLOURS if name != "golden" or class_name == "dog"]))
    return Scene(class_name, colour, _pick(rng, STYLE_WEIGHTS), _pick(rng, BACKGROUND_WEIGHTS))


def draw(seed: int, index: int, size: int = 128) -> Drawing:
    """Picture `index` of the world `seed`, `size` pixels square; the same arguments give the same picture."""
    rng = np.random.default_rng([seed, index])
    return draw_scene(scene(rng), rng, size)


def draw_scene(shown: Scene, rng: np.random.Generator, size: int = 128) -> Drawing:
    """A picture of the given scene; pose, place, light and wording come from `rng`."""
    words = captions(rng, shown.class_name, shown.colour, shown.style, shown.background)
    side = size * SUPERSAMPLING
    horizon = float(rng.uniform(0.58, 0.7))
    picture = BACKGROUND_PAINTERS[shown.background](rng, side, horizon)
    placement = _placement(rng, side, grounded=shown.class_name not in ("bird", "fish", "butterfly"))
    picture = _shadow(picture, placement, shown)
    canvas = Canvas(picture, placement, STYLE_OUTLINES[shown.style])
    paint = _varied(rng, body_colour(shown.class_name, shown.colour))
    if shown.class_name in HEADS:
        draw_animal(canvas, shown.class_name, paint, rng)
    else:
        PAINTERS[shown.class_name](canvas, paint, rng)
    colours = pixels(picture.reduce(SUPERSAMPLING)) / np.float32(255)
    mask = pixels(canvas.mask.reduce(SUPERSAMPLING)) / np.float32(255)
    finished = STYLE_FINISHES[shown.style](rng, colours, mask)
    image = Image.fromarray((finished * 255 + 0.5).astype(np.uint8))
    return Drawing(image, words, shown.class_name, shown.colour, shown.style, shown.background)


def _placement(rng: np.random.Generator, side: int, grounded: bool) -> Placement:
    scale = rng.uniform(0.37, 0.46)
    x = 0.5 + rng.uniform(-0.06, 0.06)
    y = rng.uniform(0.5, 0.54) if grounded else rng.uniform(0.45, 0.54)
    tilt = rng.uniform(-0.06, 0.06) if grounded else rng.uniform(-0.2, 0.2)
    return Placement(x * side, y * side, scale * side, bool(rng.random() < 0.5), tilt, float(rng.uniform(0.95, 1.05)))


def _shadow(picture: Image.Image, placement: Placement, shown: Scene) -> Image.Image:
    """A soft shadow on the ground below subjects that stand on it."""
    if shown.class_name in ("bird", "fish", "butterfly", "boat") or shown.background == "sky":
        return picture
    veil = Image.new("L", picture.size, 0)
    rx, ry, y = placement.scale * 0.75, placement.scale * 0.1, placement.y + placement.scale * 0.9
    ImageDraw.Draw(veil).ellipse((placement.x - rx, y - ry, placement.x + rx, y + ry), fill=90)
    veil = veil.filter(ImageFilter.BoxBlur(placement.scale * 0.06))
    picture.paste((70, 66, 90), mask=veil)
    return picture


def _varied(rng: np.random.Generator, colour: Colour) -> Colour:
    """The colour as this day's light shows it: a little lighter, darker or warmer."""
    share = float(rng.uniform(-0.1, 0.12))
    shaded = darker(colour, -share) if share < 0 else mix(colour, (255, 250, 240), share)
    return mix(shaded, (255, 190, 120), float(rng.uniform(0, 0.05)))
