"""Images of the demo pack at the speeds `exact` and `fast`, by the node's own engine without a queue, kept on disk.

What is kept is keyed by the hashes of the weights and every setting of the image.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from app.engine.diffusion.runner import DiffusionRunner
from app.engine.request import EngineRequest
from app.image_spec import AdapterSet, ImageSpec
from app.modelpacks.adapters import AdapterFolder, BaseModels
from app.modelpacks.loading import load_diffusion, reload_network
from app.modelpacks.pack import ModelPack
from app.services.inference.diffusion.model_adapters import ModelAdapters
from app.storage.image_formats import encode_image
from bench.demo_pack.generation import progress

BATCH = 16
_CPU = torch.device("cpu")


class Artist:
    """Draws images in batches, or finds those that were drawn before."""

    def __init__(self, pack: ModelPack, folder: Path, loras: Path | None = None) -> None:
        """Load the diffusion model with its few-step weights.

        Args:
            pack: Has few-step weights, or its specs have no speed `fast`.
            folder: Of kept images.
            loras: A folder of LoRAs; None: there are none.
        """
        parts = load_diffusion(pack, _CPU, torch.float32)
        few_step = pack.folder / pack.few_step.file.path if pack.few_step else None
        adapters = AdapterFolder(loras, unet=parts.unet, text_encoder=parts.text_encoder, few_step=few_step)
        self._runner = DiffusionRunner(
            tokenizer=parts.tokenizer,
            text_encoder=parts.text_encoder,
            unet=parts.unet,
            vae=parts.vae,
            noise_scheduler_config=parts.noise_scheduler_config,
            device=_CPU,
        )
        base = BaseModels(
            tokenizer=parts.tokenizer,
            text_encoder=parts.text_encoder,
            unet=parts.unet,
            reload_unet=lambda: reload_network(pack, "unet", _CPU, torch.float32),
            reload_text_encoder=lambda: reload_network(pack, "text_encoder", _CPU, torch.float32),
        )
        self._adapters = ModelAdapters(adapters, base, self._runner)
        self._loaded: dict[AdapterSet, list[str]] = {AdapterSet(): []}
        self._folder = folder / pack.revision
        self._few_step_sha256 = pack.few_step.file.sha256 if pack.few_step else ""

    def images(self, specs: Sequence[ImageSpec]) -> list[Image.Image]:
        """Return an image of each spec, in order; those of a batch have equal adapters and sizes."""
        images: list[Image.Image] = []
        for start in range(0, len(specs), BATCH):
            batch = specs[start : start + BATCH]
            hashes = self._load(batch[0].adapters)
            content = json.dumps([*hashes, *(spec.to_json() for spec in batch)], sort_keys=True)
            path = self._folder / f"{hashlib.sha256(content.encode()).hexdigest()[:20]}.npz"
            if not path.exists():
                started_s = time.perf_counter()
                _save(path, np.stack(self.draw(batch)))
                progress(f"drawn {start + len(batch)} of {len(specs)}", time.perf_counter() - started_s)
            with np.load(path) as kept:
                images.extend(Image.fromarray(pixels) for pixels in kept["pixels"])
        return images

    def draw(self, specs: Sequence[ImageSpec]) -> list[np.ndarray]:
        """Draw a batch. **Shapes**: (H, W, 3) each, uint8."""
        self._load(specs[0].adapters)
        requests = [EngineRequest("demo", spec) for spec in specs]
        for request in requests:
            self._runner.prepare(request)
        while unfinished := [request for request in requests if not self._runner.is_finished(request)]:
            self._runner.step(unfinished)
        return [self._runner.finish(request).pixels for request in requests]

    def seconds(self, specs: Sequence[ImageSpec]) -> float:
        """Return the median seconds of an image alone, from its prompt to the bytes of its PNG."""
        self.draw(specs[:1])
        taken = []
        for spec in specs:
            started_s = time.perf_counter()
            encode_image(self.draw([spec])[0], "png", {})
            taken.append(time.perf_counter() - started_s)
        return float(np.median(taken))

    def _load(self, adapters: AdapterSet) -> list[str]:
        """Load a set once; returns the hashes of what it adds."""
        if adapters not in self._loaded:
            hashes = list(self._adapters.load(adapters).values())
            self._loaded[adapters] = [*hashes, self._few_step_sha256] if adapters.is_few_step else hashes
        return self._loaded[adapters]


def _save(path: Path, pixels: np.ndarray) -> None:
    """Write a batch so that a kill at any moment leaves the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, pixels=pixels)
    os.replace(partial, path)
