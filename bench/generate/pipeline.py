"""diffusers' own pipeline on the demo pack, for the peers and for the direct call.

Knows no servers. Every peer gets the model, the noise schedulers and the PNG settings from here, so that they differ in
how they serve and in nothing else. Any thread, but a pipeline serves one call at a time.
"""

from __future__ import annotations

import functools
import io
import json
import zlib
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from transformers.utils import logging as transformers_logging

from app.engine.noise_schedulers import make_noise_scheduler
from app.modelpacks.pack import demo_pack_folder
from bench.generate.traces import ImageRequest


def load_pipeline(num_threads: int) -> Any:
    """Load the demo pack as users of diffusers do, in float32, with so many CPU threads to a forward."""
    torch.set_num_threads(num_threads)
    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()  # of loading; the one below is of denoising
    folder = demo_pack_folder() / "diffusion"
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def load_fast_pipeline(num_threads: int) -> Any:
    """Load it as a server's author would who has measured: in the memory layout that is faster on a CPU."""
    pipeline = load_pipeline(num_threads)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    return pipeline


def scheduler_for(name: str) -> Any:
    """Make a fresh noise scheduler from the pack's config."""
    return make_noise_scheduler(name, _scheduler_config())


@functools.cache
def _scheduler_config() -> dict[str, object]:
    config: dict[str, object] = json.loads(
        (demo_pack_folder() / "diffusion" / "scheduler" / "scheduler_config.json").read_text()
    )
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
    pipeline.scheduler = scheduler_for(request.scheduler)
    return draw(pipeline, [request])[0]


def encode_png(image: Image.Image) -> bytes:
    """Encode at the level and with the strategy that `app.storage.images` has found to be fast."""
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()
