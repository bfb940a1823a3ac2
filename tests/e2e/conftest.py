"""A whole node as a user starts it: real processes, the demo pack, a real client."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from testing.waiting import PATIENCE_S, wait_for

ROOT = Path(__file__).parents[2]
FOXHOUND = [sys.executable, "-m", "app.cli.main"]


class ServedNode:
    """A running `foxhound serve`.

    Attributes:
        http: A client of it.
        process: The supervisor.
        data_dir: Its data folder.
    """

    def __init__(self, http: httpx.Client, process: "subprocess.Popen[bytes]", data_dir: Path) -> None:
        self.http = http
        self.process = process
        self.data_dir = data_dir

    def child(self, command: str) -> int:
        """Return the process id of the supervisor's child `api` or `worker`."""

        def children() -> dict[int, list[str]]:
            pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            return {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0") for pid in pids}

        lines = wait_for(children, lambda lines: any(command in line for line in lines.values()))
        return next(pid for pid, line in lines.items() if command in line)


def environment(data_dir: Path, database_url: str, port: int) -> dict[str, str]:
    """Return the environment of a node that depends on nothing of the surroundings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOXHOUND_", "DATABASE_URL"))}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "FOXHOUND_DATA_DIR": str(data_dir),
        "FOXHOUND_DATABASE_URL": database_url,
        "FOXHOUND_PORT": str(port),
        "FOXHOUND_CHUNK_SIZE": "2",
        "FOXHOUND_RESERVE_MB": "0",
        "FOXHOUND_SHUTDOWN_GRACE_S": "5",
    }


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def served(
    data_dir: Path, database_url: str, *, may_be_killed: bool = False, port: int | None = None, **settings: object
) -> Iterator[ServedNode]:
    """Migrate and serve a node until the block ends; it must then end by itself, if the block has not killed it."""
    port = port or free_port()
    changed = {f"FOXHOUND_{name.upper()}": str(value) for name, value in settings.items()}
    env = {**environment(data_dir, database_url, 1), **changed}  # the option of `serve` wins over the variable
    subprocess.run([*FOXHOUND, "migrate"], env=env, check=True, cwd=data_dir.parent)
    process = subprocess.Popen([*FOXHOUND, "serve", "--port", str(port)], env=env, cwd=data_dir.parent)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:
            wait_until_ready(http, process)
            yield ServedNode(http, process, data_dir)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) in (0, 143, -signal.SIGTERM, *([-signal.SIGKILL] if may_be_killed else []))
    finally:
        process.kill()
        process.wait()


def wait_until_ready(http: httpx.Client, process: "subprocess.Popen[bytes]") -> None:
    """Wait until `/readyz` answers 200."""

    def state() -> tuple[int, str]:
        assert process.poll() is None, "the node ended"
        try:
            answer = http.get("/readyz")
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, str(answer.json().get("models"))

    wait_for(state, lambda state: state[0] == 200)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Where a SQLite database will be, once it is migrated."""
    return f"sqlite:///{tmp_path / 'foxhound.db'}"


@pytest.fixture(scope="module")
def shared_live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedNode]:
    """A served node with the demo pack for all tests that kill nothing and name what they make after themselves."""
    folder = tmp_path_factory.mktemp("shared-live")
    with served(folder / "data", f"sqlite:///{folder / 'foxhound.db'}") as node:
        yield node


@pytest.fixture
def live(tmp_path: Path, database_url: str) -> Iterator[ServedNode]:
    """A served node with the demo pack, on a database of each kind."""
    with served(tmp_path / "data", database_url) as node:
        yield node
