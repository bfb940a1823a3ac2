"""Lets small requests go before large ones, which are received piece by piece.

Each piece of a large body costs the event loop a fraction of a millisecond, and a small request is answered in a dozen
steps, each of which such a piece can delay. `Precedence` holds pieces back while a small request is being answered, for
a bounded time. Nothing waits when there is no small request. Imports no application. Runs on the event loop.
"""

import asyncio
import contextlib
from collections.abc import Iterator

# A small request that takes longer, in seconds, waits for a model or streams: it needs the event loop rarely.
YOUNG_S = 0.25
# Longest wait of one piece, in seconds. A piece has 64 KiB and more, so that a body still arrives at above 1 MB/s.
MAX_WAIT_S = 0.05


class Precedence:
    """The small requests that are being answered, and the wait of larger ones for them."""

    def __init__(self, *, young_s: float = YOUNG_S, max_wait_s: float = MAX_WAIT_S) -> None:
        """Start without requests.

        Args:
            young_s: Seconds for which a small request goes first, > 0.
            max_wait_s: Seconds that one piece of a large request waits at most, > 0.
        """
        self._young_s = young_s
        self._max_wait_s = max_wait_s
        self._young: set[object] = set()
        self._is_free = asyncio.Event()
        self._is_free.set()

    @contextlib.contextmanager
    def small(self) -> Iterator[None]:
        """Count the block as a small request that is being answered."""
        request = object()
        self._young.add(request)
        self._is_free.clear()
        aged = asyncio.get_running_loop().call_later(self._young_s, self._forget, request)
        try:
            yield
        finally:
            aged.cancel()
            self._forget(request)

    async def give_way(self) -> None:
        """Return once no young small request is being answered, or the longest wait is over."""
        if self._is_free.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._max_wait_s):
                await self._is_free.wait()

    def _forget(self, request: object) -> None:
        self._young.discard(request)
        if not self._young:
            self._is_free.set()
