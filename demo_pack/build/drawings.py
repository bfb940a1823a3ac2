"""Stage `draw`: the training and held-out drawings as arrays on disk, and their captions."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from demo_pack.build.workdir import HELD_OUT_SEED, TRAIN_SEED, log
from demo_pack.drawing import draw

SIZE = 128
CHUNK = 250
TRAINING = 24000
HELD_OUT = 1000

# Width and height of the UNet's training pictures of other sizes, and the number of each.
OTHER_SIZES = ((64, 64), (96, 96), (160, 160), (192, 192), (128, 192), (192, 128), (96, 160), (160, 96))
OF_EACH_SIZE = 1000
FIRST_OTHER = 1_000_000  # beyond the indices of the square training set


@dataclass(frozen=True)
class Drawings:
    """A set of drawings. **Shapes**: images (N, H, W, 3) uint8; the lists have N entries."""

    images: NDArray[np.uint8]
    captions: list[list[str]]
    class_names: list[str]
    colours: list[str]
    styles: list[str]
    backgrounds: list[str]

    def batch(self, indices: NDArray[np.int64]) -> torch.Tensor:
        """The chosen pictures. **Shapes**: (B, 3, H, W) float32 from -1 to 1, channels last."""
        pixels = torch.from_numpy(self.images[indices]).permute(0, 3, 1, 2)
        return pixels.to(torch.float32).div_(127.5).sub_(1)


@dataclass(frozen=True)
class Order:
    """A set to draw: `count` pictures of `seed`, from index `first` on."""

    seed: int
    count: int
    width: int = SIZE
    height: int = SIZE
    first: int = 0


def _chunk(order: Order, start: int) -> tuple[NDArray[np.uint8], list[list[object]]]:
    indices = range(order.first + start, order.first + min(start + CHUNK, order.count))
    drawings = [draw(order.seed, index, order.width, order.height) for index in indices]
    rows = [[list(d.captions), d.class_name, d.colour, d.style, d.background] for d in drawings]
    return np.stack([np.asarray(d.image) for d in drawings]), rows  # type: ignore[return-value]


def draw_set(workdir: Path, name: str, order: Order, processes: int = 2) -> None:
    """Draw a set into `workdir`, unless it is there."""
    images_path, rows_path = workdir / f"{name}.npy", workdir / f"{name}.json"
    if images_path.exists() and rows_path.exists():
        return
    workdir.mkdir(parents=True, exist_ok=True)
    images = np.empty((order.count, order.height, order.width, 3), dtype=np.uint8)
    rows: list[list[object]] = []
    with ProcessPoolExecutor(processes) as pool:
        starts = range(0, order.count, CHUNK)
        for start, (pixels, described) in zip(starts, pool.map(partial(_chunk, order), starts), strict=True):
            images[start : start + len(pixels)] = pixels
            rows.extend(described)
    np.save(images_path, images)
    rows_path.write_text(json.dumps(rows))
    log(workdir, "draw", set=name, seed=order.seed, count=order.count)


def draw_all(workdir: Path) -> None:
    """The held-out drawings, the training set, and the training pictures of other sizes."""
    draw_held_out(workdir)
    draw_set(workdir, "train", Order(TRAIN_SEED, TRAINING))
    for number, (width, height) in enumerate(OTHER_SIZES):
        first = FIRST_OTHER + number * OF_EACH_SIZE
        draw_set(workdir, f"train-{width}x{height}", Order(TRAIN_SEED, OF_EACH_SIZE, width, height, first))


def draw_held_out(workdir: Path) -> None:
    """Drawings of a seed that is not used for training."""
    draw_set(workdir, "held_out", Order(HELD_OUT_SEED, HELD_OUT))


def load_set(workdir: Path, name: str) -> Drawings:
    """A drawn set, its pictures mapped from disk."""
    rows = json.loads((workdir / f"{name}.json").read_text())
    captions, class_names, colours, styles, backgrounds = (list(column) for column in zip(*rows, strict=True))
    images = np.load(workdir / f"{name}.npy", mmap_mode="r")
    return Drawings(images, captions, class_names, colours, styles, backgrounds)
