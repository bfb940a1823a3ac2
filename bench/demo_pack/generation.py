"""Pictures from the pack, in batches, kept on disk so that an interrupted report goes on where it was.

What is kept is keyed by the pack's revision, the prompts, the seeds and every setting: new weights share nothing
with old ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from app.engine.diffusion.noise.schedulers import make_noise_scheduler
from bench.demo_pack.loading import Pack

BATCH = 20


@dataclass(frozen=True)
class Wish:
    """One picture to draw; its initial noise is fixed by its own seed, whatever batch it is drawn in."""

    prompt: str
    seed: int
    negative_prompt: str = ""


@dataclass(frozen=True)
class Settings:
    """What the pictures of a batch share; the defaults are the practical's."""

    num_inference_steps: int = 50
    guidance_scale: float = 7.5
    noise_scheduler: str = "pndm"
    height: int = 128
    width: int = 128


DEFAULTS = Settings()


def cache_path(folder: Path, revision: str, wishes: Sequence[Wish], settings: Settings) -> Path:
    """Name the file of a batch."""
    content = json.dumps([[asdict(wish) for wish in wishes], asdict(settings)], sort_keys=True)
    return folder / revision / f"{hashlib.sha256(content.encode()).hexdigest()[:20]}.npz"


class Studio:
    """Draws pictures, or finds those that it drew before."""

    def __init__(self, pack: Pack, folder: Path) -> None:
        """Take the pack and the folder of kept pictures."""
        self._pack = pack
        self._folder = folder
        self._noise_scheduler_config = dict(pack.pipeline.scheduler.config)

    def images(self, part: str, wishes: Sequence[Wish], settings: Settings = DEFAULTS) -> list[Image.Image]:
        """Return one picture a wish, in order; `part` names them in the lines of progress."""
        pictures: list[Image.Image] = []
        started, drawn = time.perf_counter(), 0
        for start in range(0, len(wishes), BATCH):
            batch = wishes[start : start + BATCH]
            path = cache_path(self._folder, self._pack.revision, batch, settings)
            if not path.exists():
                _save(path, np.stack([np.asarray(image) for image in self.draw(batch, settings)]))
                drawn += len(batch)
            with np.load(path) as kept:
                pictures.extend(Image.fromarray(pixels) for pixels in kept["pixels"])
        if drawn:
            progress(f"{part}: {drawn} pictures", time.perf_counter() - started)
        return pictures

    def draw(self, wishes: Sequence[Wish], settings: Settings = DEFAULTS) -> list[Image.Image]:
        """Draw in one call of the pipeline, without looking for kept pictures."""
        pipeline = self._pack.pipeline
        pipeline.scheduler = make_noise_scheduler(settings.noise_scheduler, self._noise_scheduler_config)
        images: list[Image.Image] = pipeline(
            [wish.prompt for wish in wishes],
            negative_prompt=[wish.negative_prompt for wish in wishes],
            generator=[torch.Generator().manual_seed(wish.seed) for wish in wishes],
            num_inference_steps=settings.num_inference_steps,
            guidance_scale=settings.guidance_scale,
            height=settings.height,
            width=settings.width,
        ).images
        return images


def progress(what: str, seconds: float) -> None:
    """Tell on standard error what was done; standard output is for the results."""
    print(f"{time.strftime('%H:%M:%S')}  {what}: {seconds:.1f} s", file=sys.stderr, flush=True)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a batch so that a kill at any moment leaves the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, pixels=pixels)
    os.replace(partial, path)
