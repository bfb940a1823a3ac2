"""A few threads beside the device's, where pictures are decoded, resized and normalised before they are queued.

Knows nothing of models or files: it runs what it is given. `run` is called on the event loop; `close` on any thread.
"""

import os

import torch
from threadpoolctl import threadpool_limits

from app.services.thread_pools import DECODING_DEADLINE_S, PicturePool

# Decoders and resizers let go of Python's lock: as many threads as cores, but no more than a device can be fed by.
MAX_THREADS = 16


class PreparationPool(PicturePool):
    """A bounded thread pool that refuses, as the engine does, what it cannot take soon."""

    def __init__(self, *, max_queue_size: int = 64, deadline_s: float = DECODING_DEADLINE_S) -> None:
        """Start no thread before there is work.

        Args:
            max_queue_size: Calls that may wait, >= 1.
            deadline_s: Seconds within which a picture must be ready once its turn has come.
        """
        super().__init__(
            "preparation",
            num_threads=min(os.cpu_count() or 1, MAX_THREADS),
            max_waiting=max_queue_size,
            deadline_s=deadline_s,
            initializer=_take_one_core_only,
        )


def _take_one_core_only() -> None:
    """Keep this thread from ever having an OpenMP team.

    Where teams have more threads than there are cores, libgomp no longer spins at their barriers but sleeps, in all of
    them and for as long as they exist: a denoising step of the demo pack then takes up to twice as long (0019).
    """
    torch.get_num_threads()  # torch sets a thread's number when it is first asked for it, and must have done so
    threadpool_limits(1, user_api="openmp")
