"""The vocabulary of the drawn world: classes, colours, styles, backgrounds and how often each is drawn."""

from __future__ import annotations

from dataclasses import dataclass

from app.modelpacks.demo.drawing.canvas import Colour

COLOURS: dict[str, Colour] = {
    "red": (205, 48, 44),
    "orange": (240, 138, 40),
    "yellow": (247, 208, 62),
    "green": (88, 168, 78),
    "blue": (62, 116, 208),
    "purple": (138, 82, 184),
    "pink": (242, 142, 178),
    "brown": (134, 86, 52),
    "black": (56, 54, 62),
    "white": (246, 244, 239),
    "grey": (150, 152, 158),
    "golden": (229, 178, 98),
}
RED_FUR: Colour = (218, 92, 36)

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
BACKGROUND_WEIGHTS = {"plain": 0.45, "grass": 0.15, "snow": 0.1, "sky": 0.1, "night": 0.1, "beach": 0.1}


@dataclass(frozen=True)
class Subject:
    """A class of the world: its share of the drawings, its words and its natural colours."""

    weight: float
    words: tuple[str, ...]
    natural: tuple[str, ...]
    natural_share: float


SUBJECTS: dict[str, Subject] = {
    "fox": Subject(0.17, ("fox",), ("red",), 0.68),
    "dog": Subject(0.17, ("dog", "dog", "puppy"), ("golden",), 0.68),
    "cat": Subject(0.07, ("cat", "cat", "kitten"), ("grey", "orange"), 0.35),
    "rabbit": Subject(0.07, ("rabbit", "rabbit", "bunny"), ("brown", "white"), 0.35),
    "bird": Subject(0.065, ("bird",), ("blue", "red"), 0.25),
    "fish": Subject(0.065, ("fish",), ("orange", "blue"), 0.25),
    "butterfly": Subject(0.065, ("butterfly",), ("orange", "blue"), 0.25),
    "flower": Subject(0.065, ("flower", "flower", "blossom"), ("red", "yellow", "pink"), 0.25),
    "tree": Subject(0.065, ("tree",), ("green",), 0.35),
    "house": Subject(0.065, ("house", "house", "cottage"), ("red", "yellow"), 0.25),
    "boat": Subject(0.065, ("boat", "boat", "sailboat"), ("red", "blue"), 0.25),
    "car": Subject(0.065, ("car",), ("red", "blue"), 0.25),
}
CLASSES: tuple[str, ...] = tuple(SUBJECTS)


def body_colour(class_name: str, colour: str) -> Colour:
    """The paint for a colour word on a subject; a red fox is fox-red, not fire-engine red."""
    return RED_FUR if class_name == "fox" and colour == "red" else COLOURS[colour]
