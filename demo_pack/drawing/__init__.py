"""Procedural drawings: small captioned pictures, the only training data of the demo pack.

Picture `index` of `seed` is a pure function of the two. Imports no models and no training code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo_pack.drawing.animals import draw_animal
from demo_pack.drawing.backgrounds import BACKGROUND_PAINTERS, Place
from demo_pack.drawing.canvas import SUPERSAMPLING, Canvas, Colour, Placement, darker, mix
from demo_pack.drawing.captions import captions
from demo_pack.drawing.heads import HEADS
from demo_pack.drawing.painters import PAINTERS
from demo_pack.drawing.styles import STYLE_FINISHES, STYLE_OUTLINES, pixels
from demo_pack.drawing.world import (
    BACKGROUND_WEIGHTS,
    CLASSES,
    COLOURS,
    STYLE_WEIGHTS,
    SUBJECTS,
    body_colour,
)

__all__ = ["CLASSES", "COLOURS", "Drawing", "Scene", "draw", "draw_scene", "scene"]

AIRBORNE = ("bird", "fish", "butterfly", "balloon")
YOUNG_SHARE = 0.3
LIGHTS = ((1.0, 1.0, 1.0), (1.02, 0.98, 0.92), (0.93, 0.94, 0.97))
LIGHT_SHARES = (0.65, 0.2, 0.15)


@dataclass(frozen=True)
class Scene:
    """The content of a drawing."""

    class_name: str
    colour: str
    style: str
    background: str


@dataclass(frozen=True)
class Drawing:
    """A finished picture, its content and several captions for it."""

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
    """A random scene, by the probabilities of the vocabulary."""
    class_name = _pick(rng, {name: subject.weight for name, subject in SUBJECTS.items()})
    subject = SUBJECTS[class_name]
    if rng.random() < subject.natural_share:
        colour = str(rng.choice(subject.natural))
    else:
        colour = str(rng.choice([name for name in COLOURS if name != "golden" or class_name == "dog"]))
    return Scene(class_name, colour, _pick(rng, STYLE_WEIGHTS), _pick(rng, BACKGROUND_WEIGHTS))


def draw(seed: int, index: int, width: int = 128, height: int = 128) -> Drawing:
    """Draw picture `index` of `seed` in the given size; the same arguments give the same picture."""
    rng = np.random.default_rng([seed, index])
    return draw_scene(scene(rng), rng, width, height)


def draw_scene(shown: Scene, rng: np.random.Generator, width: int = 128, height: int = 128) -> Drawing:
    """Draw a picture of the given scene; pose, position, light and wording come from `rng`.

    The same generator state gives the same pose and position for every colour and style.
    """
    young = bool(rng.random() < YOUNG_SHARE)
    telling = np.random.default_rng(int(rng.integers(2**32)))
    words = captions(telling, shown.class_name, shown.colour, shown.style, shown.background, young)
    tinted = bool(rng.random() < 0.5) or shown.colour == "white"
    place = Place(width * SUPERSAMPLING, height * SUPERSAMPLING, float(rng.uniform(0.58, 0.7)), tinted)
    picture = BACKGROUND_PAINTERS[shown.background](rng, place)
    placement = _placement(rng, place, grounded=shown.class_name not in AIRBORNE)
    canvas = Canvas(picture, placement, STYLE_OUTLINES[shown.style] * place.side)
    paint = _varied(rng, body_colour(shown.class_name, shown.colour))
    if shown.class_name in HEADS:
        draw_animal(canvas, shown.class_name, paint, rng, young, golden=shown.colour == "golden")
    else:
        PAINTERS[shown.class_name](canvas, paint, rng)
    colours = pixels(picture.reduce(SUPERSAMPLING)) * (_light(rng, shown.background) / np.float32(255))
    mask = pixels(canvas.mask.reduce(SUPERSAMPLING)) / np.float32(255)
    finished = STYLE_FINISHES[shown.style](rng, np.minimum(colours, 1), mask)
    image = Image.fromarray((finished * 255 + 0.5).astype(np.uint8))
    return Drawing(image, words, shown.class_name, shown.colour, shown.style, shown.background)


def _placement(rng: np.random.Generator, place: Place, grounded: bool) -> Placement:
    """Place the subject near the lower edge, or floating about the middle; it may cross a side edge by a little."""
    share = 0.3 + 0.18 * float(rng.random()) ** 0.7
    scale, tall = share * place.side, place.height - place.side
    x = place.width / 2 + rng.uniform(-0.7, 0.7) * max(0.0, place.width / 2 - 1.1 * scale)
    if grounded:
        y = place.height - rng.uniform(0.06, 0.13) * place.side - 0.2 * tall - 0.9 * scale
    else:
        y = place.height / 2 + rng.uniform(-0.6, 0.3) * max(0.0, place.height / 2 - scale)
    tilt = rng.uniform(-0.025, 0.025) if grounded else rng.uniform(-0.14, 0.14)
    return Placement(float(x), float(y), scale, bool(rng.random() < 0.5), tilt, float(rng.uniform(0.95, 1.05)))


def _light(rng: np.random.Generator, background: str) -> NDArray[np.float32]:
    """A random light as a factor for each colour channel; the backgrounds plain and night are not tinted."""
    hour = LIGHTS[int(rng.choice(len(LIGHTS), p=LIGHT_SHARES))]
    return np.array(LIGHTS[0] if background in ("plain", "night") else hour, dtype=np.float32)


def _varied(rng: np.random.Generator, colour: Colour) -> Colour:
    """Vary the colour at random: a little lighter, darker or warmer."""
    share = float(rng.uniform(-0.04, 0.08))
    shaded = darker(colour, -share) if share < 0 else mix(colour, (255, 250, 240), share)
    return mix(shaded, (255, 190, 120), float(rng.uniform(0, 0.03)))
