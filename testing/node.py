"""A node for tests: the real application on a real server and a real socket, with injected models."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from app.api.serving.server import Server
from app.config import Settings
from app.main import create_app, server_config
from app.storage.image_formats import DecodeImage, decode_image, reencode_image
from app.tracing.spans import NO_TRACING, Tracing
from testing.fake_models import FakeModels
from testing.waiting import PATIENCE_S, wait_until


class Node:
    """A served application.

    Attributes:
        http: A client of it.
        settings: Its settings.
        models: Its models.
    """

    def __init__(self, http: httpx.Client, settings: Settings, models: FakeModels, server: Server) -> None:
        self.http = http
        self.settings = settings
        self.models = models
        self._server = server

    def begin_stop(self) -> None:
        """Stop the server as a signal would, without waiting for it."""
        self._server.should_exit = True


def make_settings(data_dir: Path, database_url: str, **changes: object) -> Settings:
    """Return settings that are independent of the environment.

    All tests share one address, and many send refused requests: these are slowed down only if a test asks for it.
    """
    values = {
        "data_dir": data_dir,
        "database_url": database_url,
        "port": 0,
        "shutdown_grace_s": 2,
        "reserve_mb": 0,
        "refused_share": 0,
        **changes,
    }
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]


@contextmanager
def serve(
    settings: Settings,
    models: FakeModels,
    port: int = 0,
    parser: str = "auto",
    decode: DecodeImage = decode_image,
    tracing: Tracing = NO_TRACING,
) -> Iterator[Node]:
    """Serve the application until the block ends, on a free port if none is given."""
    settings_here = settings.model_copy(update={"port": port})
    reencode = None if decode is decode_image else partial(reencode_image, decode=decode)
    app = create_app(settings_here, start_models=models.start, decode=decode, reencode=reencode, tracing=tracing)
    server = Server(server_config(app, parser=parser), app)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()

    def has_started() -> bool:
        assert server.started or thread.is_alive(), "the server did not start"
        return server.started

    wait_until(has_started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http:
            yield Node(http, settings, models, server)
    finally:
        models.diffusion.gate.set()
        server.should_exit = True
        thread.join()
