"""A few threads beside the device's, where pictures are decoded, resized and normalised before they are queued.

Knows nothing of models or files: it runs what it is given. `run` is called on the event loop; `close` on any thread.
"""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

from app.errors import QueueFull

T = TypeVar("T")

# Decoders and resizers let go of Python's lock: as many threads as cores, but no more than a device can be fed by.
MAX_THREADS = 16

# A picture takes milliseconds: a second empties any queue that this class allows.
RETRY_AFTER_S = 1


class PreparationPool:
    """A bounded thread pool that refuses, as the engine does, what it cannot take soon."""

    def __init__(self, *, max_queue_size: int = 64) -> None:
        """Start no thread before there is work.

        Args:
            max_queue_size: Calls that may wait, >= 1.
        """
        num_threads = min(os.cpu_count() or 1, MAX_THREADS)
        self._threads = ThreadPoolExecutor(
            num_threads, thread_name_prefix="preparation", initializer=_take_one_core_only
        )
        self._max_calls = num_threads + max_queue_size
        self._num_calls = 0  # changed on the event loop alone

    async def run(self, call: Callable[[], T]) -> T:
        """Run a call on one of the threads; a caller that leaves takes a waiting call along.

        Raises:
            QueueFull: As many calls as may wait are waiting.
        """
        if self._num_calls >= self._max_calls:
            raise QueueFull(retry_after_s=RETRY_AFTER_S)
        self._num_calls += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            self._num_calls -= 1

    def close(self) -> None:
        """Drop what waits and wait for what runs. May be called again."""
        self._threads.shutdown(cancel_futures=True)


def _take_one_core_only() -> None:
    """Keep this thread from ever having an OpenMP team.

    Where teams have more threads than there are cores, libgomp no longer spins at their barriers but sleeps, in all of
    them and for as long as they exist: a denoising step of the demo pack then takes up to twice as long (0019).
    """
    torch.get_num_threads()  # torch sets a thread's number when it is first asked for it, and must have done so
    threadpool_limits(1, user_api="openmp")
