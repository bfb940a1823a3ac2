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

from app.modelpacks.demo.build.workdir import HELD_OUT_SEED, TRAIN_SEED, log
from app.modelpacks.demo.drawing import draw

SIZE = 128
CHUNK = 250


@dataclass(frozen=True)
class Drawings:
    """A set of drawings. **Shapes**: images (N, 128, 128, 3) uint8; the lists have N entries."""

    images: NDArray[np.uint8]
    captions: list[list[str]]
    class_names: list[str]
    colours: list[str]
    styles: list[str]
    backgrounds: list[str]

    def batch(self, indices: NDArray[np.int64]) -> torch.Tensor:
        """The chosen pictures. **Shapes**: (B, 3, 128, 128) float32 from -1 to 1, channels last."""
        pixels = torch.from_numpy(self.images[indices]).permute(0, 3, 1, 2)
        return pixels.to(torch.float32).div_(127.5).sub_(1)


def _chunk(seed: int, start: int) -> tuple[NDArray[np.uint8], list[list[object]]]:
    drawings = [draw(seed, index, SIZE) for index in range(start, start + CHUNK)]
    rows = [[list(d.captions), d.class_name, d.colour, d.style, d.background] for d in drawings]
    return np.stack([np.asarray(d.image) for d in drawings]), rows  # type: ignore[return-value]


def draw_set(workdir: Path, name: str, seed: int, count: int, processes: int) -> None:
    """Draw `count` pictures of world `seed` into `workdir`, unless they are there."""
    images_path, rows_path = workdir / f"{name}.npy", workdir / f"{name}.json"
    if images_path.exists() and rows_path.exists():
        return
    images = np.empty((count, SIZE, SIZE, 3), dtype=np.uint8)
    rows: list[list[object]] = []
    with ProcessPoolExecutor(processes) as pool:
        for start, (pixels, described) in zip(
            range(0, count, CHUNK), pool.map(partial(_chunk, seed), range(0, count, CHUNK)), strict=True
        ):
            images[start : start + CHUNK] = pixels
            rows.extend(described)
    np.save(images_path, images)
    rows_path.write_text(json.dumps(rows))
    log(workdir, "draw", set=name, seed=seed, count=count)


def draw_all(workdir: Path, count: int, processes: int = 2) -> None:
    """The training set of `count` drawings and the held-out ones."""
    draw_held_out(workdir, processes)
    draw_set(workdir, "train", TRAIN_SEED, count, processes)


def draw_held_out(workdir: Path, processes: int = 2) -> None:
    """1,000 drawings of a seed that no training sees."""
    workdir.mkdir(parents=True, exist_ok=True)
    draw_set(workdir, "held_out", HELD_OUT_SEED, 1000, processes)


def load_set(workdir: Path, name: str) -> Drawings:
    """A drawn set, its pictures mapped from disk."""
    rows = json.loads((workdir / f"{name}.json").read_text())
    captions, class_names, colours, styles, backgrounds = (list(column) for column in zip(*rows, strict=True))
    images = np.load(workdir / f"{name}.npy", mmap_mode="r")
    return Drawings(images, captions, class_names, colours, styles, backgrounds)
