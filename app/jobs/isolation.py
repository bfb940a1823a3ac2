"""Which chunks and steps may run side by side in one worker: all but suspects, which run alone.

A suspect is a workflow that a worker crashed over, see `attribute_crash.py`. Imports neither jobs nor the database.
Called on the threads of the workflows.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_CHECK_INTERVAL_S = 0.2


class Isolation:
    """The chunks and steps that run in this process: any number of unsuspected ones, or one suspect."""

    def __init__(self) -> None:
        """Begin with none."""
        self._condition = threading.Condition()
        self._num_running = 0
        self._num_suspects = 0  # running or waiting

    @contextmanager
    def held(self, *, is_suspect: bool, keep_waiting: Callable[[], None]) -> Iterator[None]:
        """Wait until a chunk or step may run, and exclude what must not run beside it until the block ends.

        Args:
            is_suspect: Whether it must run alone; chunks and steps that come later wait for it.
            keep_waiting: Called every 0.2 s while waiting; raises to give up.
        """
        with self._condition:
            self._num_suspects += is_suspect
            try:
                while self._num_running if is_suspect else self._num_suspects:
                    self._condition.wait(_CHECK_INTERVAL_S)
                    keep_waiting()
            except BaseException:
                self._num_suspects -= is_suspect
                self._condition.notify_all()
                raise
            self._num_running += 1
        try:
            yield
        finally:
            with self._condition:
                self._num_running -= 1
                self._num_suspects -= is_suspect
                self._condition.notify_all()
