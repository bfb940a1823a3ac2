"""The vocabulary of the drawings: classes, colours, styles and backgrounds, and the probability of each.

Imports no painting code.
"""

from __future__ import annotations

from dataclasses import dataclass

from demo_pack.drawing.canvas import Colour

COLOURS: dict[str, Colour] = {
    "red": (212, 44, 44),
    "orange": (246, 148, 38),
    "yellow": (250, 216, 64),
    "green": (82, 168, 76),
    "blue": (58, 116, 212),
    "purple": (140, 78, 188),
    "pink": (246, 150, 186),
    "brown": (126, 78, 48),
    "black": (54, 52, 60),
    "white": (246, 245, 242),
    "grey": (148, 151, 158),
    "golden": (230, 182, 106),
}
FUR_COLOURS: dict[tuple[str, str], Colour] = {("fox", "red"): (216, 84, 36), ("fox", "orange"): (250, 172, 62)}
YOUNG_WORDS = {"dog": "puppy", "cat": "kitten"}

STYLES: dict[str, tuple[str, ...]] = {
    "watercolor": ("a watercolor painting of", "a watercolor painting of", "a watercolor of", "a watercolour of"),
    "pencil": ("a pencil sketch of", "a pencil sketch of", "a pencil drawing of", "a sketch of"),
    "oil": ("an oil painting of", "an oil painting of", "an oil painting of", "an oil on canvas of"),
    "flat": ("a flat illustration of", "a flat illustration of", "an illustration of", "a flat drawing of"),
}
STYLE_WEIGHTS = {"watercolor": 0.43, "pencil": 0.19, "oil": 0.19, "flat": 0.19}

BACKGROUNDS: dict[str, tuple[str, ...]] = {
    "plain": ("on plain paper", "on white paper", "on a plain background"),
    "grass": ("on green grass", "on green grass", "on the grass", "in a meadow"),
    "snow": ("in the snow", "on snow", "in snow", "in winter"),
    "sky": ("under a blue sky", "under a blue sky", "against a blue sky", "with clouds"),
    "night": ("at night", "at night", "under the moon", "under the stars"),
    "beach": ("on the beach", "on the beach", "on a beach", "by the sea"),
}
BACKGROUND_WEIGHTS = {"plain": 0.4, "grass": 0.2, "snow": 0.1, "sky": 0.1, "night": 0.1, "beach": 0.1}


@dataclass(frozen=True)
class Subject:
    """A class of the world: its share of the drawings, its words and its natural colours."""

    weight: float
    words: tuple[str, ...]
    natural: tuple[str, ...]
    natural_share: float


SUBJECTS: dict[str, Subject] = {
    "fox": Subject(0.1, ("fox",), ("red",), 0.62),
    "dog": Subject(0.1, ("dog", "dog", "puppy"), ("golden",), 0.62),
    "cat": Subject(0.05, ("cat", "cat", "kitten"), ("grey", "orange"), 0.35),
    "rabbit": Subject(0.05, ("rabbit", "rabbit", "bunny"), ("brown", "white"), 0.35),
    "bird": Subject(0.05, ("bird",), ("blue", "red"), 0.25),
    "fish": Subject(0.05, ("fish",), ("orange", "blue"), 0.25),
    "butterfly": Subject(0.05, ("butterfly",), ("orange", "blue"), 0.25),
    "flower": Subject(0.05, ("flower", "flower", "blossom"), ("red", "yellow", "pink"), 0.25),
    "tree": Subject(0.05, ("tree",), ("green",), 0.35),
    "house": Subject(0.05, ("house", "house", "cottage"), ("red", "yellow"), 0.25),
    "boat": Subject(0.05, ("boat", "boat", "sailboat"), ("red", "blue"), 0.25),
    "car": Subject(0.05, ("car",), ("red", "blue"), 0.25),
    "elephant": Subject(0.05, ("elephant",), ("grey",), 0.35),
    "turtle": Subject(0.05, ("turtle", "turtle", "tortoise"), ("green",), 0.35),
    "snail": Subject(0.05, ("snail",), ("brown",), 0.3),
    "mushroom": Subject(0.05, ("mushroom", "mushroom", "toadstool"), ("red",), 0.35),
    "apple": Subject(0.05, ("apple",), ("red", "green"), 0.35),
    "balloon": Subject(0.05, ("balloon", "hot-air balloon"), ("red", "blue"), 0.25),
}
CLASSES: tuple[str, ...] = tuple(SUBJECTS)


def body_colour(class_name: str, colour: str) -> Colour:
    """The paint for a colour word on a subject; a red fox is fox-red, not fire-engine red."""
    return FUR_COLOURS.get((class_name, colour), COLOURS[colour])
