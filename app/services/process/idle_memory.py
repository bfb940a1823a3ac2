"""Returns freed heap memory to the system once the work that needed it has ended.

The process keeps what a forward frees for the next forward (`app/engine/kernels/host_memory.py`), so it would also keep
the hundreds of megabytes that a few large pictures took while they were decoded. Imports no models. `note_work` and
`close` are called on the event loop.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable
from pathlib import Path

# Seconds without work after which memory is returned.
IDLE_S = 2.0
# Growth since the last return, in bytes, from which it is worth the pages that the next forward takes again.
MIN_GROWTH_BYTES = 64 * 2**20

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Return the resident memory of this process, in bytes; 0 where the system does not tell it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0


def trim_heap() -> None:
    """Return the free pages of every heap to the system; only glibc can. Other threads continue meanwhile."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class IdleMemory:
    """Trims the heap when there was no work for `IDLE_S` and the process has grown."""

    def __init__(
        self,
        *,
        resident: Callable[[], int] = resident_bytes,
        trim: Callable[[], None] = trim_heap,
        idle_s: float = IDLE_S,
    ) -> None:
        """Start with the present size as the least one.

        Args:
            resident: Returns the resident bytes of the process.
            trim: Returns memory to the system; called on a thread.
            idle_s: Seconds without work, > 0.
        """
        self._resident = resident
        self._trim = trim
        self._idle_s = idle_s
        self._least = resident()
        self._timer: asyncio.TimerHandle | None = None

    def note_work(self) -> None:
        """Record that a call has ended; the wait for idleness starts anew."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._idle_s, lambda: loop.run_in_executor(None, self._return))

    def close(self) -> None:
        """Forget the planned return."""
        if self._timer is not None:
            self._timer.cancel()

    def _return(self) -> None:
        if self._resident() > self._least + MIN_GROWTH_BYTES:
            self._trim()
            self._least = self._resident()
        self._least = min(self._least, self._resident())
