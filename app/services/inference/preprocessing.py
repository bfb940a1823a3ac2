"""A thread pool beside the device thread that decodes, resizes and normalises pictures before they are queued.

Imports neither models nor files: it runs the functions it is given. `run` is called on the event loop; `close` on any
thread.
"""

import os

from app.services.thread_pools import DECODING_DEADLINE_S, PicturePool, take_one_core_only

# Decoders and resizers release Python's lock, so there is a thread for each core. More than these would not raise the
# throughput of a device.
MAX_THREADS = 16


class PreparationPool(PicturePool):
    """A bounded thread pool; like the engine it raises `QueueFull` rather than queue without limit."""

    def __init__(self, *, max_queue_size: int = 64, deadline_s: float = DECODING_DEADLINE_S) -> None:
        """Set the bounds; threads start with the first work.

        Args:
            max_queue_size: Calls that may wait, >= 1.
            deadline_s: Seconds that the preparation of one picture may take once a thread has begun it.
        """
        super().__init__(
            "preparation",
            num_threads=min(os.cpu_count() or 1, MAX_THREADS),
            max_waiting=max_queue_size,
            deadline_s=deadline_s,
            initializer=take_one_core_only,
        )
