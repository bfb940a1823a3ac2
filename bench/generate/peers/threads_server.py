"""The pattern of diffusers' `examples/server-async`: many pipelines over one set of weights, without batching.

Each request gets a shallow copy of the pipeline, which keeps what one run writes on it apart, and its own copy of the
noise scheduler; locks guard the tokenizer and the VAE, which are shared. Written from the pattern's description; the
example's cache clearing after each request is left out in the peer's favour, and the drawing threads share the CPU
threads instead of each having all of them.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch
from fastapi import FastAPI, Response

from app.engine.diffusion.noise.schedulers import NOISE_SCHEDULERS
from bench.generate.peers.command import parse_peer, serve_app, subject_of
from bench.generate.pipeline import Subject, draw, encode_png, load_fast_pipeline, scheduler_for
from bench.generate.traces import ImageRequest


class Locked:
    """Stands in for a shared object: calls of it, and of its method `decode`, take a lock."""

    def __init__(self, target: Any) -> None:
        """Guard `target`."""
        self._target = target
        self._lock = threading.Lock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the target alone."""
        with self._lock:
            return self._target(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Decode alone."""
        with self._lock:
            return self._target.decode(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """Pass everything else through."""
        return getattr(self._target, name)


class SharedPipeline:
    """One set of weights that many threads draw with."""

    def __init__(self, pipeline: Any) -> None:
        """Take a loaded pipeline; it is changed."""
        self._schedulers = {name: scheduler_for(name, pipeline) for name in NOISE_SCHEDULERS}
        # Past the pipeline's own __setattr__, which would look for the stand-ins' library.
        vars(pipeline).update(tokenizer=Locked(pipeline.tokenizer), vae=Locked(pipeline.vae))
        self._pipeline = pipeline

    def png(self, request: ImageRequest) -> bytes:
        """Draw one image, on any thread."""
        own = copy.copy(self._pipeline)
        vars(own)["scheduler"] = copy.deepcopy(self._schedulers[request.scheduler])
        return encode_png(draw(own, [request])[0])


def create_app(num_workers: int, subject: Subject) -> FastAPI:
    """Load the pipeline and serve it with so many drawing threads, which share the CPU threads."""
    app = FastAPI()
    each = max(1, subject.threads // num_workers)
    pool = ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(each,))
    # On a thread that draws, so that no other one keeps a team of CPU threads.
    shared = pool.submit(lambda: SharedPipeline(load_fast_pipeline(replace(subject, threads=each)))).result()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.post("/generate")
    async def generate(body: dict[str, Any]) -> Response:
        request = ImageRequest.from_json(body)
        png = await asyncio.get_running_loop().run_in_executor(pool, shared.png, request)
        return Response(png, media_type="image/png")

    return app


if __name__ == "__main__":
    arguments = parse_peer()
    serve_app(create_app(arguments.workers, subject_of(arguments)), arguments.port)
