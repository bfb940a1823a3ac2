"""The supervisor, with real processes: it runs in one of its own, and so do its children."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.node.supervisor import EXIT_CONFIG
from testing.waiting import PATIENCE_S, wait_until

ROOT = Path(__file__).parents[3]

SUPERVISOR = """
import sys
from app.node.supervisor import run_supervised
folder, *children = sys.argv[1:]
code = {name: [sys.executable, "-c", open(f"{folder}/{name}.py").read(), folder] for name in children}
sys.exit(run_supervised(code, grace_s=0.5))
"""

# Writes its pid as a line and then does as the test says.
CHILD = """
import os, sys, threading, time
from pathlib import Path
from app.node.supervisor import watch_supervisor
folder = Path(sys.argv[1])
with (folder / "{name}.log").open("a") as log:
    log.write(f"{{os.getpid()}}\\n")
{body}
"""

WAIT = "gone = threading.Event(); watch_supervisor(gone.set); gone.wait()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); (folder / 'deaf').touch(); time.sleep(600)"
REFUSE = f"while not (folder / 'api.log').exists(): time.sleep(0.01)\nsys.exit({EXIT_CONFIG})"

Supervise = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Start a supervisor over children given as name=body."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**bodies: str) -> "subprocess.Popen[bytes]":
        for name, body in bodies.items():
            (tmp_path / f"{name}.py").write_text(CHILD.format(name=name, body=body))
        command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), *bodies]
        started.append(subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.kill()
        supervisor.wait()


def test_a_child_that_dies_is_started_again_and_its_sibling_is_left_alone(supervise: Supervise, tmp_path: Path) -> None:
    supervise(api=WAIT, worker=WAIT)
    [api], [worker] = pids(tmp_path, "api", 1), pids(tmp_path, "worker", 1)
    os.kill(worker, signal.SIGKILL)
    assert pids(tmp_path, "worker", 2)[0] == worker
    assert pids(tmp_path, "api", 1) == [api]
    assert is_running(api)


def test_a_child_that_keeps_dying_is_started_ever_more_slowly(supervise: Supervise, tmp_path: Path) -> None:
    supervise(worker="(folder / 'times.log').open('a').write(f'{time.monotonic()}\\n'); sys.exit(3)")
    wait_until(lambda: len(lines(tmp_path / "times.log")) >= 3)
    first, second, third = (float(line) for line in lines(tmp_path / "times.log")[:3])
    assert second - first >= 0.5
    assert third - second >= 1.0


def test_children_end_when_the_supervisor_is_killed(supervise: Supervise, tmp_path: Path) -> None:
    supervisor = supervise(api=WAIT, worker=WAIT)
    children = pids(tmp_path, "api", 1) + pids(tmp_path, "worker", 1)
    supervisor.kill()
    supervisor.wait()
    wait_until(lambda: not any(is_running(child) for child in children))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_supervisor_ends_all(supervise: Supervise, tmp_path: Path, number: int) -> None:
    supervisor = supervise(api=WAIT, worker=WAIT)
    children = pids(tmp_path, "api", 1) + pids(tmp_path, "worker", 1)
    supervisor.send_signal(number)
    assert supervisor.wait(timeout=PATIENCE_S) == 0
    assert not any(is_running(child) for child in children)


def test_a_child_deaf_to_sigterm_is_killed_after_the_grace(supervise: Supervise, tmp_path: Path) -> None:
    supervisor = supervise(api=STUBBORN)
    [child] = pids(tmp_path, "api", 1)
    wait_until((tmp_path / "deaf").exists)
    supervisor.terminate()
    assert supervisor.wait(timeout=PATIENCE_S) == 0
    assert not is_running(child)


def test_a_configuration_error_of_one_child_ends_all(supervise: Supervise, tmp_path: Path) -> None:
    supervisor = supervise(api=WAIT, worker=REFUSE)
    [api] = pids(tmp_path, "api", 1)
    assert supervisor.wait(timeout=PATIENCE_S) == EXIT_CONFIG
    assert not is_running(api)
    assert len(lines(tmp_path / "worker.log")) == 1


def pids(folder: Path, name: str, count: int) -> list[int]:
    """The pids of a child's starts, as soon as there are so many."""
    wait_until(lambda: len(lines(folder / f"{name}.log")) >= count)
    return [int(line) for line in lines(folder / f"{name}.log")]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Orphans are left to init, which may not collect them at once (or, in a container, ever).
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
