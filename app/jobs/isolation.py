"""What may run side by side in one worker: chunks and steps, but for those that a worker has died over.

Of two that ran side by side, either may have killed the worker; each is then tried alone, so that no job pays for
another one's fault. Knows no jobs and no database. Called on the threads of the workflows.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LOOK_UP_S = 0.2


class Isolation:
    """Chunks and steps that run in this process, side by side or one alone."""

    def __init__(self) -> None:
        """Begin with none."""
        self._condition = threading.Condition()
        self._num_running = 0
        self._num_suspects = 0  # running or waiting

    @contextmanager
    def held(self, *, is_suspect: bool, keep_waiting: Callable[[], None]) -> Iterator[None]:
        """Wait until a chunk or step may run, and keep others from what it must not share until the block ends.

        Args:
            is_suspect: Whether it must run alone; who comes later waits for it.
            keep_waiting: Called now and then; raises to give up.
        """
        with self._condition:
            self._num_suspects += is_suspect
            try:
                while self._num_running if is_suspect else self._num_suspects:
                    self._condition.wait(_LOOK_UP_S)
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
