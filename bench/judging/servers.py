"""The servers under test as processes of their own, and the environments that the peers live in.

Servers that are not measured are stopped by signal, so that none of them costs another one time.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
START_TIMEOUT_S = 240.0


class Server:
    """A running server; paused but within `awake`."""

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

    def stop(self) -> None:
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
    server = Server(process, port)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(port, ready_path):
        if process.poll() is not None or time.monotonic() > deadline:
            server.stop()
            raise RuntimeError(f"{command[0]} did not start: {log.read_text(errors='replace')[-600:]}")
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGSTOP)
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
    command = [sys.executable, "-m", "app.cli"]
    subprocess.run([*command, "migrate"], env={**os.environ, **env}, check=True, capture_output=True)
    return start([*command, "api"], port, "/readyz", workdir / "ours.log", env)


def start_litserve(python: Path, endpoint: str, batch: int, timeout_s: float, models: Path, threads: int) -> Server:
    """Start LitServe for one endpoint."""
    port = free_port()
    command = [str(python), str(HERE / "litserve_server.py"), endpoint, "--folder", str(models), "--port", str(port)]
    command += ["--threads", str(threads), "--max-batch-size", str(batch), "--batch-timeout", str(timeout_s)]
    return start(command, port, "/health", models / "litserve.log", {"OMP_NUM_THREADS": str(threads)})


def start_infinity(python: Path, batch: int, models: Path, threads: int) -> Server:
    """Start infinity on the CLIP folder."""
    port = free_port()
    command = [str(python.with_name("infinity_emb")), "v2", "--model-id", str(models / "clip")]
    command += ["--served-model-name", "clip", "--engine", "torch", "--device", "cpu", "--dtype", "float32"]
    command += ["--batch-size", str(batch), "--port", str(port), "--no-bettertransformer"]
    env = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1"}
    return start(command, port, "/health", models / "infinity.log", env)


def peer_python(name: str, folder: Path, *, shares_torch: bool) -> Path:
    """Return the interpreter of a peer's environment; made from its requirements the first time.

    Args:
        name: `litserve` or `infinity`.
        folder: Where the environments are.
        shares_torch: Lend it the libraries of this environment, so that both run the very same torch.

    Raises:
        RuntimeError: It could not be made.
    """
    venv = folder / name
    python = venv / "bin" / "python"
    if (venv / "done").exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    if shares_torch:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        lent = venv / "lib" / version / "site-packages" / "lent.pth"
        lent.write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [str(python), "-m", "pip", "install", "-q", "-r", str(HERE / f"requirements-{name}.txt")]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} cannot be installed: {done.stderr[-600:]}")
    (venv / "done").touch()
    return python


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
