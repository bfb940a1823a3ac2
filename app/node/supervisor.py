"""The supervisor of a node: it restarts its child processes and stops them when it ends, even if it is killed.

Imports only the standard library and nothing of the children. `run_supervised` occupies the main thread of its process;
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

# Exit status of a child that would fail again after a restart (EX_CONFIG of sysexits.h).
EXIT_CONFIG = 78

# Environment variable with the file descriptor of the pipe that closes when the supervisor ends.
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
    """Run the children until SIGTERM or SIGINT, and restart each one that exits.

    The first restart comes after 0.5 s, and each further one after twice the delay, at most 30 s. A child that has run
    for 60 s starts again with the first delay.

    Args:
        children: Command line of each child, by its name.
        grace_s: Seconds the children have to end after SIGTERM, > 0; then they are killed.

    Returns:
        The exit status for this process: 0 after a stop signal, EXIT_CONFIG if a child exited with it.
    """
    running = [_Child(name, argv) for name, argv in children.items()]
    alive_fd, held_fd = os.pipe()  # the children inherit the read end; only this process has the write end
    with _stop_signals() as stop:
        try:
            while not stop.wait(_POLL_S):
                for child in running:
                    if _restart_if_ended(child, alive_fd) == EXIT_CONFIG:
                        logger.error("The %s cannot run with this configuration.", child.name)
                        return EXIT_CONFIG
            return 0
        finally:
            _stop_all(running, grace_s)
            os.close(alive_fd)
            os.close(held_fd)


def watch_supervisor(on_gone: Callable[[], None]) -> None:
    """Call a function on a new thread when this process's supervisor has ended; never without a supervisor."""
    fd = os.environ.get(SUPERVISOR_FD)
    if fd is None:
        return

    def wait_for_end() -> None:
        while os.read(int(fd), 1):  # no data is ever written, so this returns when the pipe closes
            pass
        on_gone()

    threading.Thread(target=wait_for_end, name="supervisor-watch", daemon=True).start()


def _restart_if_ended(child: _Child, alive_fd: int) -> int | None:
    """Start the child if it is due; return its exit status if it has ended since the last call."""
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
    logger.warning("The %s ended with status %d. It restarts in %.1f s.", child.name, status, child.delay_s)
    child.start_at = now + child.delay_s
    child.delay_s = min(2 * child.delay_s, _MAX_DELAY_S)
    return status


def _start(child: _Child, alive_fd: int) -> None:
    child.process = subprocess.Popen(
        child.argv,
        stdin=subprocess.DEVNULL,
        pass_fds=[alive_fd],
        env={**os.environ, SUPERVISOR_FD: str(alive_fd)},
        process_group=0,  # Ctrl-C in the terminal reaches only the supervisor, which then stops the children
    )
    child.started_at = time.monotonic()


def _stop_all(children: Sequence[_Child], grace_s: float) -> None:
    running = [child.process for child in children if child.process is not None]
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
    """Yield an event that SIGTERM and SIGINT set during the block."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
