"""diffusers' own pipeline on the pack that is measured, for the peers and for the direct call.

Knows no servers. Every peer gets the model, the noise schedulers and the PNG settings from here, so that they differ in
how they serve and in nothing else. Any thread, but a pipeline serves one call at a time.
"""

from __future__ import annotations

import functools
import io
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from app.engine.diffusion.noise.schedulers import make_noise_scheduler
from bench.generate.traces import ImageRequest


@dataclass(frozen=True, slots=True)
class Subject:
    """What every server serves, and on what.

    Attributes:
        pack: The folder of a pack: `demo`, or `sd15`.
        device: `cpu` or `cuda`.
        threads: CPU threads of a forward.
        dtype: Number format of the models, as `FOXHOUND_DTYPE` takes it.
    """

    pack: Path
    device: str
    threads: int
    dtype: str = "float32"

    @property
    def is_gpu(self) -> bool:
        """Whether forwards are compiled where a server can."""
        return self.device != "cpu"


def load_pipeline(subject: Subject) -> Any:
    """Load the pack as users of diffusers do."""
    torch.set_num_threads(subject.threads)
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()  # of loading; the one below is of denoising
    pipeline = StableDiffusionPipeline.from_pretrained(
        subject.pack / "diffusion",
        local_files_only=True,
        dtype=getattr(torch, subject.dtype),
        variant="fp16" if subject.is_gpu else None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(subject.device)


def load_fast_pipeline(subject: Subject, *, compiles: bool = False) -> Any:
    """Load it as a server's author would who has measured and read diffusers' "Accelerate inference".

    Args:
        subject: What is loaded.
        compiles: Whether the server can serve a compiled UNet and VAE; on a GPU alone. Not in the mode
            `reduce-overhead`: PNDM keeps outputs, which the next replay of a CUDA graph overwrites.
    """
    pipeline = load_pipeline(subject)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    if subject.is_gpu and compiles:
        pipeline.unet.compile(fullgraph=True)
        pipeline.vae.decode = torch.compile(pipeline.vae.decode)
    return pipeline


def scheduler_for(name: str, pipeline: Any) -> Any:
    """Make a fresh noise scheduler from the config of the pack that a pipeline was loaded from."""
    return make_noise_scheduler(name, _scheduler_config(Path(pipeline.name_or_path)))


@functools.cache
def _scheduler_config(folder: Path) -> dict[str, object]:
    config: dict[str, object] = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    return config


@torch.inference_mode()
def draw(pipeline: Any, requests: Sequence[ImageRequest]) -> list[Image.Image]:
    """Run requests in one call; all must be alike but for prompt and seed, and the noise scheduler must be set."""
    first = requests[0]
    pictures: list[Image.Image] = pipeline(
        [request.prompt for request in requests],
        num_inference_steps=first.num_inference_steps,
        guidance_scale=first.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
    ).images
    return pictures


def draw_one(pipeline: Any, request: ImageRequest) -> Image.Image:
    """Run one request with its own noise scheduler."""
    pipeline.scheduler = scheduler_for(request.scheduler, pipeline)
    return draw(pipeline, [request])[0]


def encode_png(image: Image.Image) -> bytes:
    """Encode at the level and with the strategy that `app.storage.image_formats` has found to be fast."""
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()
