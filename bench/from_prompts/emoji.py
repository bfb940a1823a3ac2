"""The test pictures: emoji by independent sets, in `../shared/data/emoji/{class}/{set}__{name}.png`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from app.training.probe import Labels

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "emoji"


@dataclass(frozen=True)
class TestSet:
    """The pictures of all classes.

    Attributes:
        sets: Of each picture, whose hand drew it.
    """

    images: list[Image.Image]
    labels: Labels
    sets: list[str]


def load_emoji(folder: Path, class_names: Sequence[str]) -> TestSet:
    """Read every picture of the classes, in the order of classes and file names."""
    images, labels, sets = [], [], []
    for index, name in enumerate(class_names):
        for path in sorted((folder / name).glob("*.png")):
            images.append(Image.open(path).convert("RGB"))
            labels.append(index)
            sets.append(path.name.split("__")[0])
    return TestSet(images, np.array(labels, np.int64), sets)
