"""The prompts that the report asks for: correct articles, possible and natural colours."""

from __future__ import annotations

from demo_pack.drawing.world import COLOURS, SUBJECTS


def article(words: str) -> str:
    """Return `a` or `an` as the next word wants it."""
    return "an" if words[0] in "aeiou" else "a"


def colours_of(class_name: str) -> list[str]:
    """Return the colours that a class can have: only dogs are golden."""
    return [colour for colour in COLOURS if colour != "golden" or class_name == "dog"]


def natural_colour(class_name: str) -> str:
    """Return the first of a class's natural colours."""
    return SUBJECTS[class_name].natural[0]


def natural_subject(class_name: str) -> str:
    """Name a class in its natural colour, as people would."""
    return "golden retriever" if class_name == "dog" else f"{natural_colour(class_name)} {class_name}"


def painting(subject: str, style: str = "a watercolor painting of", place: str = "") -> str:
    """Build a prompt, such as "a watercolor painting of an orange cat in the snow"."""
    return f"{style} {article(subject)} {subject} {place}".rstrip()
