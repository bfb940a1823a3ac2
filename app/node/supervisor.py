"""The supervisor of a node: keeps its children running, and ends them when it ends, however it ends.

Knows nothing of what the children do. `run_supervised` takes over the main thread of its process;
`watch_supervisor` runs in a child, on a thread of its own.
"""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

# A child ends with this when starting it again cannot help (EX_CONFIG of sysexits.h).
EXIT_CONFIG = 78

# Names the file descriptor on which a child sees its supervisor's end.
SUPERVISOR_FD = "FOXHOUND_SUPERVISOR_FD"

_FIRST_DELAY_S = 0.5
_MAX_DELAY_S = 30.0
_LONG_LIFE_S = 60.0
_POLL_S = 0.1


@dataclass(slots=True)
class _Child:
    name: str
    argv: Sequence[str]
    delay_s: float = _FIRST_DELAY_S
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = field(default=0.0)
    start_at: float = field(default=0.0)


def run_supervised(children: Mapping[str, Sequence[str]], *, grace_s: float = 15.0) -> int:
    """Run the children until SIGTERM or SIGINT, starting each again when it dies.

    A child that dies is started again after 0.5 s, then after twice as long each time, at most 30 s;
    once it has lived for a minute the count begins anew.

    Args:
        children: Command line of each child, by its name.
        grace_s: Time the children get to end, > 0; then they are killed.

    Returns:
        The exit status for this process: 0 when it was asked to end, EXIT_CONFIG when a child said that
        it cannot run as configured.
    """
    family = [_Child(name, argv) for name, argv in children.items()]
    alive_fd, held_fd = os.pipe()  # the children inherit the first; the second is ours alone
    with _stop_signals() as stop:
        try:
            while not stop.wait(_POLL_S):
                for child in family:
                    if _tend(child, alive_fd) == EXIT_CONFIG:
                        logger.error("The %s cannot run with this configuration.", child.name)
                        return EXIT_CONFIG
            return 0
        finally:
            _end(family, grace_s)
            os.close(alive_fd)
            os.close(held_fd)


def watch_supervisor(on_gone: Callable[[], None]) -> None:
    """Call a function, on a thread of its own, when this process's supervisor has ended; without one, never."""
    fd = os.environ.get(SUPERVISOR_FD)
    if fd is None:
        return

    def wait_for_end() -> None:
        while os.read(int(fd), 1):  # nothing is ever written: this returns at the end of the pipe
            pass
        on_gone()

    threading.Thread(target=wait_for_end, name="supervisor-watch", daemon=True).start()


def _tend(child: _Child, alive_fd: int) -> int | None:
    """Start the child if it is time to; return the exit status if it has just died."""
    now = time.monotonic()
    if child.process is None:
        if now >= child.start_at:
            _start(child, alive_fd)
        return None
    status = child.process.poll()
    if status is None:
        return None
    child.process = None
    if status == EXIT_CONFIG:
        return status
    if now - child.started_at >= _LONG_LIFE_S:
        child.delay_s = _FIRST_DELAY_S
    logger.warning("The %s ended with status %d; starting it again in %.1f s.", child.name, status, child.delay_s)
    child.start_at = now + child.delay_s
    child.delay_s = min(2 * child.delay_s, _MAX_DELAY_S)
    return status


def _start(child: _Child, alive_fd: int) -> None:
    child.process = subprocess.Popen(
        child.argv,
        stdin=subprocess.DEVNULL,
        pass_fds=[alive_fd],
        env={**os.environ, SUPERVISOR_FD: str(alive_fd)},
        process_group=0,  # a Ctrl-C in the terminal is for the supervisor, which passes it on
    )
    child.started_at = time.monotonic()


def _end(family: Sequence[_Child], grace_s: float) -> None:
    running = [child.process for child in family if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + grace_s
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Turn SIGTERM and SIGINT into an event for the length of the block."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
