"""A node and its worker as processes of their own, for tests that kill them and start them again.

Processes are forked from a server of `multiprocessing` that has imported the application once: a start takes a tenth
of a second instead of several.
"""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import httpx

from app.config import Settings
from app.db.session import Database
from testing import processes
from testing.kills import Kill
from testing.node import make_settings
from testing.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[2]

_context = multiprocessing.get_context("forkserver")


def start_fork_server() -> None:
    """Start the server that every process is forked from; once for all tests of a session."""
    _context.set_forkserver_preload(["pytest", "pytest.__main__", "testing.processes"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [before])])
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


def start(life: Callable[..., None], *args: Any) -> ForkServerProcess:
    """Start a process that lives through a function."""
    process = _context.Process(target=life, args=args)
    process.start()
    return process


def end(process: ForkServerProcess | None) -> None:
    """Kill a process, if it still lives, and wait until it is gone."""
    if process is not None:
        process.kill()
        process.join()


def exit_code(process: ForkServerProcess | None) -> int | None:
    """Wait until a process has ended by itself, and return how; negative: the signal that ended it."""
    assert process is not None
    process.join(PATIENCE_S)
    return process.exitcode


def pid_of(process: ForkServerProcess) -> int:
    """Return the id of a process that was started."""
    assert process.pid is not None
    return process.pid


def wait_for_death(process: ForkServerProcess | None) -> None:
    """Wait until a process has killed itself, and by nothing but that."""
    assert exit_code(process) == -signal.SIGKILL


class House:
    """A data folder and a database, with up to one node and one worker at a time.

    Attributes:
        url: The database's.
        db: The database, opened in the test's process.
        settings: Both processes'.
        http: A client of the node, whenever it runs.
        node: The node's process, the last one started.
        worker: The worker's.
        num_deaths: How often one of them was found dead and started again.
    """

    def __init__(self, folder: Path, url: str, http: httpx.Client, settings: Settings) -> None:
        self.url = url
        self.db = Database(url)
        self.settings = settings
        self.http = http
        self.node: ForkServerProcess | None = None
        self.worker: ForkServerProcess | None = None
        self.num_deaths = 0
        self._folder = folder

    @property
    def data_dir(self) -> Path:
        """Where images and datasets lie."""
        return self.settings.data_dir

    def start_node(self, kill: Kill | None = None) -> None:
        """Start the node, and wait until it is ready."""
        self.node = start(processes.node, self.settings, kill)
        wait_until(self._is_ready)

    def start_worker(self, kill: Kill | None = None) -> None:
        """Start the worker."""
        self.worker = start(processes.worker, self.settings, kill)

    def mend(self) -> None:
        """Start what is dead again, as a supervisor does."""
        for process, start_it in ((self.node, self.start_node), (self.worker, self.start_worker)):
            if process is None or not process.is_alive():
                self.num_deaths += process is not None
                start_it()

    def mend_until(self, is_so: Callable[[], bool]) -> None:
        """Mend again and again until something is so."""

        def is_mended_and_so() -> bool:
            self.mend()
            return is_so()

        wait_until(is_mended_and_so)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop whatever lives, so that what lies on the disk can be looked at as it is at one moment."""
        living = [process for process in (self.node, self.worker) if process is not None and process.is_alive()]
        for process in living:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
        try:
            wait_until(lambda: all(_stands_still(process) for process in living))
            yield
        finally:
            for process in living:
                assert process.pid is not None
                os.kill(process.pid, signal.SIGCONT)

    def hold(self) -> None:
        """Let the engine stand still within its next step."""
        (self._folder / "hold").touch()

    def wait_until_held(self) -> None:
        """Wait until it does."""
        wait_until((self._folder / "held").exists)

    def let_go(self) -> None:
        """Let it go on."""
        (self._folder / "hold").unlink()
        (self._folder / "held").unlink(missing_ok=True)

    def kill(self) -> None:
        """Let both processes die as in a power cut."""
        end(self.worker)
        end(self.node)

    def close(self) -> None:
        """Kill what runs."""
        self.kill()
        self.db.close()

    def _is_ready(self) -> bool:
        assert self.node is not None
        assert self.node.is_alive(), "the node died while it started"
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False


def _stands_still(process: ForkServerProcess) -> bool:
    """Tell whether every thread of a process is stopped; one within a system call ends that first."""
    threads = Path(f"/proc/{process.pid}/task").glob("*/stat")
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in threads} == {"T"}


@contextmanager
def open_house(folder: Path, url: str, **changes: Any) -> Iterator[House]:
    """Give a house in which nothing runs yet; what runs at the end is killed. `changes` are further settings."""
    with socket.socket() as probe:  # one port for the node's whole life, killed or not
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"chunk_size": 4, "worker_ttl_s": 2, "shutdown_grace_s": 1, "num_threads": 1}
    settings = make_settings(folder / "data", url, port=port, **{**common, **changes})
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as http:
        house = House(folder, url, http, settings)
        try:
            yield house
        finally:
            house.close()
