"""Generated images of the recipe, drawn by the node's own engine without a queue, and kept on disk.

What is kept is keyed by the pack's revision and every setting of the image, so that an interrupted run continues.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from app.engine.diffusion.encoder import ImageToImage
from app.engine.diffusion.runner import DiffusionRunner
from app.engine.request import EngineRequest
from app.image_spec import ImageSpec
from app.modelpacks.pack import demo_pack_folder, read_pack
from app.schemas.datasets import DatasetCreate
from app.services.datasets.recipes.recipe import Recipe
from app.services.datasets.recipes.vocabulary import make_recipe, vocabulary_of
from app.services.datasets.records import new_dataset
from app.services.images.spec import SizeRules
from bench.demo_pack.generation import progress
from bench.demo_pack.loading import Pack

BATCH = 18
# **Shapes**: (H, W, 3).
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Plan:
    """What is drawn.

    Attributes:
        per_class: Images of each class.
        steps: Denoising steps of `dpmpp_2m`.
    """

    per_class: int
    steps: int
    seed: int


def make_dataset_recipe(class_names: Sequence[str], plan: Plan) -> Recipe:
    """Build the recipe as a dataset job would have it: sampled variables, guidance 1 to 5, the CLIP filter."""
    pack = read_pack(demo_pack_folder())
    prompts = make_recipe(class_names, vocabulary_of(pack.name))
    request = DatasetCreate.model_validate(
        {
            "name": "from-prompts",
            "seed": plan.seed,
            "train_per_class": plan.per_class,
            "classes": [
                {"name": name, "prompts": texts} for name, texts in zip(class_names, prompts.prompts, strict=True)
            ],
            "variables": prompts.variables,
            "combine": "sampled",
            "filter": {},
            "generation": {
                "guidance_scale": prompts.guidance.model_dump(),
                "num_inference_steps": plan.steps,
                "scheduler": "dpmpp_2m",
            },
        }
    )
    sizes = SizeRules(pack.native_size, pack.min_side, pack.max_side, pack.default_noise_scheduler)
    return Recipe(new_dataset(request, sizes, pack, job_id=None))


class Artist:
    """Draws images in batches, or finds those that were drawn before."""

    def __init__(self, pack: Pack, folder: Path) -> None:
        """Take the pack, whose UNet and VAE are optimized in place, and the folder of kept images."""
        pipeline = pack.pipeline
        self._folder = folder / pack.revision
        self._runner = DiffusionRunner(
            tokenizer=pipeline.tokenizer,
            text_encoder=pipeline.text_encoder,
            unet=pipeline.unet,
            vae=pipeline.vae,
            noise_scheduler_config=dict(pipeline.scheduler.config),
            device=torch.device("cpu"),
        )

    def images(self, specs: Sequence[ImageSpec], pictures: Mapping[str, Pixels] | None = None) -> list[Image.Image]:
        """Return an image of each spec, in order; `pictures` are the initial images that specs name, by their hash."""
        images: list[Image.Image] = []
        started_s, num_drawn = time.perf_counter(), 0
        for start in range(0, len(specs), BATCH):
            batch = specs[start : start + BATCH]
            content = json.dumps([spec.to_json() for spec in batch], sort_keys=True)
            path = self._folder / f"{hashlib.sha256(content.encode()).hexdigest()[:20]}.npz"
            if not path.exists():
                _save(path, np.stack(self._draw(batch, pictures or {})))
                num_drawn += len(batch)
                progress(f"drawn {num_drawn} of {len(specs)}", time.perf_counter() - started_s)
            with np.load(path) as kept:
                images.extend(Image.fromarray(pixels) for pixels in kept["pixels"])
        return images

    def _draw(self, specs: Sequence[ImageSpec], pictures: Mapping[str, Pixels]) -> list[Pixels]:
        requests = [EngineRequest("demo", _payload(spec, pictures)) for spec in specs]
        for request in requests:
            self._runner.prepare(request)
        while unfinished := [request for request in requests if not self._runner.is_finished(request)]:
            self._runner.step(unfinished)
        return [self._runner.finish(request).pixels for request in requests]


def _payload(spec: ImageSpec, pictures: Mapping[str, Pixels]) -> ImageSpec | ImageToImage:
    return spec if spec.init_image is None else ImageToImage(spec, pictures[spec.init_image.sha256])


def _save(path: Path, pixels: Pixels) -> None:
    """Write a batch so that a kill at any moment leaves the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, pixels=pixels)
    os.replace(partial, path)
