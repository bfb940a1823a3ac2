"""The processes that the crash tests kill: an API process, a worker and `foxhound migrate`.

Only the models are fakes. Each function is the main function of a process that `tests.crash.house` forks.
"""

import hashlib
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL.Image import Image as Picture

from app.api.serving.server import Server
from app.cli.main import app as command_line
from app.config import Settings
from app.db.session import Database
from app.engine.request import EngineRequest
from app.jobs.worker import Worker
from app.main import create_app, server_config, with_middleware
from app.modelpacks.photo import ensure_photo
from app.node.client import NodeClient
from app.worker import leave_process, run_worker
from testing.fake_models import FakeClip, FakeDiffusion, FakeModels
from testing.kills import DeadlyMessages, Kill, arm
from testing.pictures import Pictures
from testing.waiting import PATIENCE_S

TTL_S = 2.0


class HeldDiffusion(FakeDiffusion):
    """Pauses in every step while the folder has a file `hold`, and then creates a file `held`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def step(self, requests: Sequence[EngineRequest]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (self._folder / "hold").exists() and time.monotonic() < deadline:
            (self._folder / "held").touch()
            time.sleep(0.01)
        super().step(requests)


class DoubtfulClip(FakeClip):
    """Assigns about a quarter of the pictures to the wrong class, always the same ones."""

    def __init__(self) -> None:
        super().__init__()
        self.score = self._doubt

    def _doubt(self, picture: Picture, text: str) -> float:
        shown = "fox" if picture.getpixel((0, 0))[0] > 127 else "dog"  # type: ignore[index]
        is_doubtful = hashlib.sha256(picture.tobytes()).digest()[0] < 64
        return float((shown in text) != is_doubtful)


def node(settings: Settings, kill: Kill | None) -> None:
    """Serve the application on the settings' port, as `foxhound api` does."""
    arm(kill)
    models = FakeModels(DoubtfulClip)
    models.diffusion = HeldDiffusion(settings.data_dir.parent)
    app = create_app(settings, start_models=models.start)
    served = DeadlyMessages(with_middleware(app), kill)
    Server(server_config(app, served=served), app).run()


def worker(settings: Settings, kill: Kill | None) -> None:
    """Run jobs, as `foxhound worker` does; SIGTERM ends it."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    arm(kill)
    run_worker(settings, NodeClient(settings.engine_socket), stop)
    leave_process()


def migrate(settings: Settings, kill: Kill | None) -> None:
    """Run `foxhound migrate`."""
    os.environ["FOXHOUND_DATABASE_URL"] = settings.resolved_database_url
    os.environ["FOXHOUND_DATA_DIR"] = str(settings.data_dir)
    arm(kill)
    command_line(["migrate"], standalone_mode=False)


def convert_photo(folder: Path, num_threads: int, kill: Kill | None) -> None:
    """Convert the weights of `photo` on several threads at once; exit with the number of conversions."""
    arm(kill)
    converted: list[str] = []
    sys.addaudithook(
        lambda name, args: (
            converted.append(args[1]) if name == "os.rename" and "model.safetensors" in str(args[1]) else None
        )
    )
    with ThreadPoolExecutor(num_threads) as threads:
        for done in [threads.submit(ensure_photo, folder) for _ in range(num_threads)]:
            done.result()
    sys.exit(len(converted))


def pictures_worker(url: str, chunks_at_once: int = 1) -> None:
    """Run jobs of the kind `pictures` only; SIGTERM ends it."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    db = Database(url, idle_transaction_s=TTL_S)
    worker = Worker(db, url, [Pictures()], ttl_s=TTL_S, poll_s=0.05, chunks_at_once=chunks_at_once)
    worker.run(stop, grace_s=2)
