"""The tutorial's server, well set up: FastAPI, one pipeline, and a lock around it.

Every call of the model is made on one thread of its own. On FastAPI's thread pool each thread that comes by would start
a team of CPU threads for itself, and the teams of one process would stand in each other's way. The noise scheduler is
swapped for each request.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import FastAPI, Response

from bench.generate.peers.command import parse_peer, serve_app, subject_of
from bench.generate.pipeline import Subject, draw_one, encode_png, load_fast_pipeline
from bench.generate.traces import ImageRequest


def create_app(subject: Subject) -> FastAPI:
    """Load the pipeline and serve it."""
    app = FastAPI()
    lock = asyncio.Lock()
    model_thread = ThreadPoolExecutor(1)
    pipeline = model_thread.submit(load_fast_pipeline, subject, compiles=True).result()

    @app.get("/health")
    async def health() -> str:
        return "ok"

    @app.post("/generate")
    async def generate(body: dict[str, Any]) -> Response:
        request = ImageRequest.from_json(body)
        async with lock:
            image = await asyncio.get_running_loop().run_in_executor(model_thread, draw_one, pipeline, request)
        return Response(encode_png(image), media_type="image/png")

    return app


if __name__ == "__main__":
    arguments = parse_peer()
    serve_app(create_app(subject_of(arguments)), arguments.port)
