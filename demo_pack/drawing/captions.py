"""Captions of a drawing: several for each, in the words that people type.

Imports no painting code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo_pack.drawing.world import BACKGROUNDS, COLOURS, STYLES, SUBJECTS, YOUNG_WORDS

CAPTIONS_PER_DRAWING = 4


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def subject_phrase(rng: np.random.Generator, class_name: str, colour: str, young: bool = False) -> str:
    """The subject with its colour word; natural colours are sometimes omitted, others never."""
    subject, baby = SUBJECTS[class_name], YOUNG_WORDS.get(class_name)
    word = str(rng.choice([name for name in subject.words if name != baby]))
    if young and baby and rng.random() < 0.7:
        word = baby
    elif class_name == "dog" and colour == "golden" and rng.random() < 0.6:
        return "golden retriever"
    if colour in subject.natural and rng.random() < 0.3:
        return word
    return f"{colour} {word}"


def caption(
    rng: np.random.Generator, class_name: str, colour: str, style: str, background: str, young: bool = False
) -> str:
    """One caption; style and background are each sometimes omitted."""
    subject = subject_phrase(rng, class_name, colour, young)
    unsaid = 0.7 if background == "plain" else 0.2
    place = "" if rng.random() < unsaid else " " + str(rng.choice(BACKGROUNDS[background]))
    if rng.random() < 0.82:
        return f"{rng.choice(STYLES[style])} {_article(subject)} {subject}{place}"
    if rng.random() < 0.5:
        return f"{_article(subject)} {subject}{place}"
    return f"{subject}{place}"


def captions(
    rng: np.random.Generator, class_name: str, colour: str, style: str, background: str, young: bool = False
) -> tuple[str, ...]:
    """`CAPTIONS_PER_DRAWING` captions of one drawing."""
    return tuple(caption(rng, class_name, colour, style, background, young) for _ in range(CAPTIONS_PER_DRAWING))


@dataclass(frozen=True)
class Said:
    """The statements of a caption about its picture; None where it makes none."""

    class_name: str | None
    colour: str | None
    style: str | None
    background: str | None


def said(text: str) -> Said:
    """Parse a caption, or a label such as "a photo of a red fox"."""
    style = next((name for name, phrases in STYLES.items() if text.startswith(phrases)), None)
    background = None
    for name, phrases in BACKGROUNDS.items():
        if text.endswith(phrases):
            background = name
            text = text[: -max(len(phrase) for phrase in phrases if text.endswith(phrase))]
            break
    words = text.split()
    if words[-1:] == ["retriever"]:
        return Said("dog", "golden", style, background)
    spoken = f" {' '.join(words)} "
    class_name = next(
        (name for name, subject in SUBJECTS.items() if any(f" {word} " in spoken for word in subject.words)), None
    )
    colour = next((word for word in words if word in COLOURS), None)
    return Said(class_name, colour, style, background)
