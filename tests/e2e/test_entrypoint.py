"""The container's entrypoint, without a container: it migrates, serves and ends like a good process."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testing.waiting import PATIENCE_S, wait_until

ENTRYPOINT = Path(__file__).parents[2] / "docker" / "entrypoint.sh"
# Only reached when it fails: a crowded machine takes minutes to import torch twice.
# Installs nothing, but imports torch and migrates before it answers.
START_TIMEOUT_S = 300.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until_alive(url: str, process: "subprocess.Popen[bytes]") -> None:
    def answers() -> bool:
        assert process.poll() is None, "the service ended before it answered"
        try:
            httpx.get(f"{url}/livez").raise_for_status()
        except httpx.TransportError:
            return False
        return True

    wait_until(answers, START_TIMEOUT_S)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The entrypoint as a process, in a folder and with an environment of its own, and its address."""
    port = free_port()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FOXHOUND_", "DATABASE_URL"))}
    env = inherited | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FOXHOUND_PORT": str(port),
        "FOXHOUND_DATA_DIR": str(tmp_path / "data"),
        "FOXHOUND_RUN_DIR": str(tmp_path / "run"),
        "FOXHOUND_DEVICE": "cpu",
        "FOXHOUND_SHUTDOWN_GRACE_S": "5",
    }
    process = subprocess.Popen([ENTRYPOINT], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_entrypoint_migrates_serves_and_ends_cleanly_on_sigterm(service, tmp_path: Path) -> None:
    process, url = service
    wait_until_alive(url, process)
    assert (tmp_path / "data" / "foxhound.db").exists()
    assert httpx.get(f"{url}/datasets").json() == {"items": [], "next_cursor": None, "total": 0}

    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE_S) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/livez")
    assert not (tmp_path / "run" / "engine.sock").exists()
