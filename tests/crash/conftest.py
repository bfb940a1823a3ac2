import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

StartWorker = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start_worker(database_url: str) -> Iterator[StartWorker]:
    """Starts worker processes on the test's database; what still runs at the end is killed."""
    workers: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, str(ROOT / "tests/crash/worker.py"), database_url, "2"]
        workers.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}))
        return workers[-1]

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()
