"""Starts and stops the servers, each a real process on a free port. Knows nothing of what they are asked."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from bench.generate.pipeline import Subject

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 20.0
OURS = "foxhound"
# The same node, asked with `speed: "balanced"`.
BALANCED = "balanced"


@dataclass(frozen=True, slots=True)
class Server:
    """How to start one.

    Attributes:
        name: What it is called in the tables; several settings of one server share it.
        setting: What was chosen for it, for the tables; empty where there is nothing to choose.
        python: The interpreter.
        arguments: Those of the interpreter; `{port}` and the attributes of `Subject` are filled in.
        ready_path: Answers 200 once the model is loaded.
    """

    name: str
    setting: str
    python: Path
    arguments: tuple[str, ...]
    ready_path: str = "/health"


def foxhound() -> Server:
    """Ours: the whole node, worker included."""
    return Server(OURS, "", Path(sys.executable), ("-m", "app.cli.main", "serve"), "/readyz")


def lock_server() -> Server:
    """FastAPI, a lock and `StableDiffusionPipeline`."""
    return _peer("lock", "", Path(sys.executable), "lock_server")


def threads_server(workers: int) -> Server:
    """The pattern of diffusers' `examples/server-async`."""
    setting = f"{workers} worker{'s' * (workers > 1)}"
    return _peer("threads", setting, Path(sys.executable), "threads_server", f"--workers={workers}")


def litserve_server(python: Path, max_batch_size: int, batch_timeout_s: float) -> Server:
    """LitServe with batching."""
    tuning = (f"--max-batch-size={max_batch_size}", f"--batch-timeout={batch_timeout_s}")
    return _peer("litserve", f"batch {max_batch_size}, {batch_timeout_s:g} s", python, "litserve_server", *tuning)


def _peer(name: str, setting: str, python: Path, module: str, *tuning: str) -> Server:
    what = ("--pack={pack}", "--device={device}", "--threads={threads}", "--dtype={dtype}")
    return Server(name, setting, python, ("-m", f"bench.generate.peers.{module}", "--port={port}", *what, *tuning))


class RunningServer:
    """A server that is up.

    Attributes:
        url: Where it answers.
        pid: Its first process.
    """

    def __init__(self, url: str, process: subprocess.Popen[bytes]) -> None:
        """Take the first process of a session of its own."""
        self.url = url
        self.pid = process.pid
        self._process = process

    def pause(self) -> None:
        """Stop all its processes where they are, so that they take nothing from the one that is measured."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on."""
        os.killpg(self._process.pid, signal.SIGCONT)


@contextmanager
def running(server: Server, subject: Subject, log: Path) -> Iterator[RunningServer]:
    """Run a server until the block ends; gives it once it is ready.

    Raises:
        RuntimeError: It ended or did not become ready; names its log.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as probe, log.open("ab") as output:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        environment = _environment(Path(folder), port, subject)
        if server.name == OURS:
            migrate = [str(server.python), "-m", "app.cli.main", "migrate"]
            subprocess.run(migrate, env=environment, cwd=folder, check=True, stdout=output, stderr=output)
        words = {"port": port, **asdict(subject)}
        command = [str(server.python), *(argument.format(**words) for argument in server.arguments)]
        # A session of its own, so that what the server starts can be ended with it.
        process = subprocess.Popen(
            command, env=environment, cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url + server.ready_path, process, log)
            yield RunningServer(url, process)
        finally:
            _stop(process)


def versions() -> dict[str, str]:
    """Return those of what does the work, LitServe's apart."""
    names = ("torch", "diffusers", "transformers", "fastapi", "uvicorn", "pillow", "httpx")
    return {"python": sys.version.split()[0], **{name: importlib.metadata.version(name) for name in names}}


def _environment(folder: Path, port: int, subject: Subject) -> dict[str, str]:
    foreign = ("FOXHOUND_", "DATABASE_URL", "OMP_", "MKL_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]),
        "OMP_NUM_THREADS": str(subject.threads),
        "HF_HUB_OFFLINE": "1",
        "FOXHOUND_DATA_DIR": str(folder / "data"),
        "FOXHOUND_PORT": str(port),
        "FOXHOUND_MODEL_PACK": "sd15" if subject.is_gpu else "demo",
        "FOXHOUND_MODELS_DIR": str(subject.pack.parent if subject.is_gpu else folder / "models"),
        "FOXHOUND_DEVICE": subject.device,
        "FOXHOUND_DTYPE": subject.dtype,
        "FOXHOUND_NUM_THREADS": str(subject.threads),
        "FOXHOUND_GPU_COMPILE": "true",
    }


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended; see {log}")
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the server did not become ready; see {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, paused or not, then end whatever is left of its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGCONT)
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
