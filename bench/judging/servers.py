"""The servers under test as processes of their own.

Servers that are not measured are paused by signal, so that none of them costs another one time.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from bench.judging.material import write_for_infinity

HERE = Path(__file__).parent
START_TIMEOUT_S = 300.0


class Server:
    """A running server; paused but within `awake`, ended with the block that it is the context of."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        """Take a process that leads its own group."""
        self._process = process
        self.port = port

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run for the block."""
        os.killpg(self._process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self._process.pid, signal.SIGSTOP)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def start(command: list[str], port: int, ready_path: str, log: Path, env: dict[str, str] | None = None) -> Server:
    """Start a server and wait until `ready_path` answers 200; it is paused afterwards.

    Raises:
        RuntimeError: It ended or did not become ready; the message has the end of its log.
    """
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, env={**os.environ, **(env or {})}, start_new_session=True
        )
    with contextlib.ExitStack() as unless_ready:
        server = unless_ready.enter_context(Server(process, port))
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(port, ready_path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-600:]}")
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGSTOP)
        unless_ready.pop_all()
    return server


def start_ours(models: Path, workdir: Path, threads: int) -> Server:
    """Start the API process that `foxhound serve` supervises, with CLIP and ResNet50 from local folders."""
    port = free_port()
    env = {
        "FOXHOUND_PORT": str(port),
        "FOXHOUND_DATA_DIR": str(workdir / "data"),
        "FOXHOUND_CLIP_DIR": str(models / "clip"),
        "FOXHOUND_CLASSIFIER_DIR": str(models / "classifier"),
        "FOXHOUND_NUM_THREADS": str(threads),
        "FOXHOUND_DEVICE": "cpu",
    }
    command = [sys.executable, "-m", "app.cli.main"]
    subprocess.run([*command, "migrate"], env={**os.environ, **env}, check=True, capture_output=True)
    return start([*command, "api"], port, "/readyz", workdir / "ours.log", env)


def start_litserve(
    python: Path, endpoint: str, *, workers: int, batch: int, timeout_s: float, models: Path, threads: int
) -> Server:
    """Start LitServe for one endpoint; its workers share the threads."""
    port = free_port()
    each = str(max(1, threads // workers))
    command = [str(python), str(HERE / "litserve_server.py"), endpoint, "--folder", str(models), "--port", str(port)]
    command += ["--threads", each, "--workers", str(workers)]
    command += ["--max-batch-size", str(batch), "--batch-timeout", str(timeout_s)]
    return start(command, port, "/health", models / "litserve.log", {"OMP_NUM_THREADS": each})


def start_infinity(python: Path, *, batch: int, models: Path, threads: int) -> Server:
    """Start infinity on the CLIP folder."""
    port, folder = free_port(), models / "clip-infinity"
    write_for_infinity(models / "clip", folder)
    command = [str(python.with_name("infinity_emb")), "v2", "--model-id", str(folder)]
    command += ["--served-model-name", "clip", "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    command += ["--batch-size", str(batch), "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    command += ["--no-bettertransformer", "--no-compile", "--no-model-warmup"]
    env = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return start(command, port, "/health", models / "infinity.log", env)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
