"""The tutorial's server: FastAPI, one pipeline, one lock; the noise scheduler is swapped for each request."""

from __future__ import annotations

import threading
from typing import Any

from fastapi import FastAPI, Response

from bench.generate.peers.command import parse_peer, serve_app
from bench.generate.pipeline import draw_one, encode_png, load_pipeline
from bench.generate.traces import ImageRequest


def create_app(pipeline: Any) -> FastAPI:
    """Serve a loaded pipeline; FastAPI runs the handlers on its thread pool."""
    app = FastAPI()
    lock = threading.Lock()

    @app.get("/health")
    def health() -> str:
        return "ok"

    @app.post("/generate")
    def generate(body: dict[str, Any]) -> Response:
        with lock:
            image = draw_one(pipeline, ImageRequest.from_json(body))
        return Response(encode_png(image), media_type="image/png")

    return app


if __name__ == "__main__":
    arguments = parse_peer()
    serve_app(create_app(load_pipeline(arguments.threads)), arguments.port)
