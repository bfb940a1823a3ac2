"""A thread pool beside the device thread that decodes, resizes and normalises pictures before they are queued.

Imports neither models nor files: it runs the functions it is given. `run` is called on the event loop; `close` on any
thread.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from app.services.process.thread_pools import (
    DECODING_DEADLINE_S,
    NUM_LARGE_PICTURES,
    PicturePool,
    compute_aside,
    take_one_core_only,
)

T = TypeVar("T")

# Decoders and resizers release Python's lock, so there is a thread for each core. More than these would not raise the
# throughput of a device.
MAX_THREADS = 16


@dataclass(frozen=True, eq=False, slots=True)
class PictureRequest:
    """A request whose pictures are prepared in turn with those of others.

    Attributes:
        is_large: Whether one of its pictures takes long; then all wait for the threads of large pictures.
    """

    is_large: bool = False


class PreparationPool(PicturePool):
    """A bounded thread pool, and a second one for large pictures, of a lower priority.

    A small picture so never waits for a large one. Like the engine it raises `QueueFull` rather than queue without
    limit.
    """

    def __init__(self, *, max_queue_size: int = 64, deadline_s: float = DECODING_DEADLINE_S) -> None:
        """Set the bounds; threads start with the first work.

        Args:
            max_queue_size: Calls that may wait, >= 1.
            deadline_s: Seconds that the preparation of one small picture may take once a thread has begun it.
        """
        super().__init__(
            "preparation",
            num_threads=min(os.cpu_count() or 1, MAX_THREADS),
            max_waiting=max_queue_size,
            deadline_s=deadline_s,
            initializer=take_one_core_only,
        )
        # No deadline: the processes that decode large pictures have one of their own.
        self._large = PicturePool(
            "large-pictures",
            num_threads=NUM_LARGE_PICTURES,
            max_waiting=max_queue_size,
            deadline_s=None,
            initializer=compute_aside,
        )

    async def run(self, call: Callable[[], T], *, owner: object = None, caller: str = "") -> T:
        """Run a call as `PicturePool.run` does; on the threads of large pictures if its owner asks with one."""
        if isinstance(owner, PictureRequest) and owner.is_large:
            return await self._large.run(call, owner=owner, caller=caller)
        return await super().run(call, owner=owner, caller=caller)

    def close(self) -> None:
        """Drop waiting calls and wait for running ones. May be called again."""
        super().close()
        self._large.close()
