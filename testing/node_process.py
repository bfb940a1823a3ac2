"""Several nodes, for tests and for bench/nodes: the real application and the real worker of each, as processes.

Their models are fakes whose step is a wait of a fixed time, so that nodes on one machine do not share its processor as
they would with real models. The processes are forked from one that has imported everything, which saves seconds each.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from app.api.serving.server import Server
from app.config import Settings
from app.engine.diffusion.runner import spec_of
from app.engine.request import EngineRequest
from app.logs.setup import LogFormat, configure_logging
from app.main import create_app, server_config
from app.node.client import NodeClient
from app.worker import leave_process, run_worker
from testing.fake_models import FakeDiffusion, FakeModels, add_backbone
from testing.namespaces import enter
from testing.node import make_settings
from testing.waiting import wait_until


@dataclass(frozen=True)
class Plan:
    """The configuration of a node.

    Attributes:
        name: Its name; nodes of different names count as different machines.
        folder: Its own folder, with its socket, its logs and `rendered.log`.
        data_dir: The storage that all nodes share.
        database_url: The database that they share.
        step_s: Duration of a denoising step, in seconds.
        ttl_s: Seconds without a heartbeat after which a worker counts as dead, >= 2.
        chunk_size: Images of a chunk, >= 1.
        etc: A folder whose files replace those in `/etc` for the node; needs root.
        network: The network namespace in which it runs; needs root.
        backbone: A folder with a network of timm that it has as the backbone `tiny`.
        log_format: The format of its logs.
        log_level: The least severity in them.
        port: The port of its HTTP server; 0 selects a free one.
    """

    name: str
    folder: Path
    data_dir: Path
    database_url: str
    step_s: float = 0.02
    ttl_s: float = 2.0
    chunk_size: int = 4
    etc: Path | None = None
    network: str | None = None
    backbone: Path | None = None
    log_format: LogFormat = "text"
    log_level: str = "warning"
    port: int = 0

    @property
    def settings(self) -> Settings:
        """The settings of its processes."""
        return make_settings(
            self.data_dir,
            self.database_url,
            run_dir=self.folder,
            worker_ttl_s=self.ttl_s,
            chunk_size=self.chunk_size,
            shutdown_grace_s=2,
            port=self.port,
        )

    @property
    def hold(self) -> Path:
        """While this file exists, no step ends."""
        return self.folder / "hold"

    @property
    def held(self) -> Path:
        """Exists once a step waits for the removal of `hold`."""
        return self.folder / "held"

    @property
    def rendered(self) -> Path:
        """The seed of every image rendered, one a line."""
        return self.folder / "rendered.log"


class FixedCost(FakeDiffusion):
    """Waits a fixed time in every step, independent of its rows, and logs the seed of each rendered image."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan

    def step(self, requests: Sequence[EngineRequest]) -> None:
        while self._plan.hold.exists():
            self._plan.held.touch()
            time.sleep(0.01)
        time.sleep(self._plan.step_s)
        super().step(requests)
        for request in requests:
            if self.is_finished(request):
                with self._plan.rendered.open("a") as log:
                    log.write(f"{spec_of(request.payload).seed}\n")


class NodeProcesses:
    """A running node: its API process and its worker.

    Attributes:
        plan: Its configuration.
        worker: The worker's process.
    """

    def __init__(self, plan: Plan) -> None:
        """Start both processes; returns when the application listens to the worker."""
        plan.folder.mkdir(parents=True, exist_ok=True)
        self.plan = plan
        self._api = _start(_serve, plan)
        wait_until(plan.settings.engine_socket.exists)
        self.worker = _start(_work, plan)

    def rendered(self) -> list[int]:
        """Return the seed of every image rendered so far, repeats included."""
        return [int(line) for line in self.plan.rendered.read_text().split()] if self.plan.rendered.exists() else []

    def log(self, process: str = "worker") -> str:
        """Return what the worker, or `api`, has logged."""
        path = self.plan.folder / f"{process}.log"
        return path.read_text() if path.exists() else ""

    def kill(self) -> None:
        """Kill both processes, as a power failure would."""
        for process in (self.worker, self._api):
            process.kill()
            process.join()

    def stop_worker(self) -> None:
        """Suspend the worker (SIGSTOP)."""
        assert self.worker.pid is not None
        os.kill(self.worker.pid, signal.SIGSTOP)

    def wake_worker(self) -> None:
        """Resume a suspended worker."""
        assert self.worker.pid is not None
        os.kill(self.worker.pid, signal.SIGCONT)


StartNode = Callable[..., NodeProcesses]


@contextlib.contextmanager
def nodes(folder: Path, data_dir: Path, database_url: str, **common: object) -> Iterator[StartNode]:
    """Run nodes on one database and storage; they are killed at the end of the block.

    Yields a function that starts a node, from its name and further members of its plan.
    """
    started: list[NodeProcesses] = []

    def start(name: str, **changes: object) -> NodeProcesses:
        plan = Plan(name, folder / name, data_dir, database_url, **{**common, **changes})  # type: ignore[arg-type]
        started.append(NodeProcesses(plan))
        return started[-1]

    try:
        yield start
    finally:
        for node in started:
            node.kill()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)


def _run(run: Callable[[Plan], None], plan: Plan) -> None:
    enter(etc=plan.etc, network=plan.network)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run(plan)


def _start(run: Callable[[Plan], None], plan: Plan) -> ForkServerProcess:
    context: ForkServerContext = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(run, plan), daemon=True)
    process.start()
    return process


def _log_to_file(plan: Plan, process: str) -> None:
    stream = (plan.folder / f"{process}.log").open("a", buffering=1)
    os.dup2(stream.fileno(), 2)  # what is printed past the log, too
    configure_logging(plan.log_level, plan.log_format, process, stream)


def _serve(plan: Plan) -> None:
    _log_to_file(plan, "api")
    models = FakeModels()
    models.diffusion = FixedCost(plan)
    if plan.backbone is not None:
        add_backbone(models, plan.backbone)
    app = create_app(plan.settings, start_models=models.start)
    Server(server_config(app), app).run()


def _work(plan: Plan) -> None:
    _log_to_file(plan, "worker")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    run_worker(plan.settings, NodeClient(plan.settings.engine_socket), stop, host=plan.name)
    leave_process()
