"""A value that takes long to compute and may be some seconds old: computed on a thread of its own, one at a time.

A scrape waits for it a moment at most. Where it cannot be had, the scrape does without it. Imports nothing of the
application; `read` is called on the event loop.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")

# A value that could not be computed is tried again after this.
RETRY_S = 5.0


class Figures(Generic[T]):
    """The latest value of a function."""

    def __init__(
        self,
        compute: Callable[[], T],
        threads: ThreadPoolExecutor,
        *,
        max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the value; nothing is computed yet.

        Args:
            compute: Returns it; may block and raise.
            threads: Where it runs.
            max_age_s: Seconds after which it is computed again, > 0; after at most `RETRY_S` where it failed.
            clock: Monotonic seconds.
        """
        self._compute = compute
        self._threads = threads
        self._max_age_s = max_age_s
        self._clock = clock
        self._running: Future[T | None] | None = None
        self._value: T | None = None
        self._expires_at = -float("inf")

    async def read(self, wait_s: float) -> T | None:
        """Return the value, at most `max_age_s` old; None if it could not be computed, or not within `wait_s`."""
        if self._clock() < self._expires_at:
            return self._value
        if self._running is None:
            self._running = self._threads.submit(self._try)
        running = self._running
        await asyncio.wait([asyncio.wrap_future(running)], timeout=wait_s)
        if not running.done():
            return None
        if self._running is running:  # else another scrape has taken the result
            self._running, self._value = None, running.result()
            max_age_s = self._max_age_s if self._value is not None else min(RETRY_S, self._max_age_s)
            self._expires_at = self._clock() + max_age_s
        return self._value

    def _try(self) -> T | None:
        try:
            return self._compute()
        except Exception:  # such as an outage of the database
            logger.warning("Figures for /metrics could not be read; their series are left out.", exc_info=True)
            return None
