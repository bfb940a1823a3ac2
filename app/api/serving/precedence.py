"""Lets small requests go before large ones.

A small request is answered in dozens of steps that need Python's lock, and each can be delayed by whatever else needs
it: the receipt of a piece of a large body, for a fraction of a millisecond, or the reading of a long list, for several.
`Precedence` holds these back while a small request is being answered, for a bounded time. Nothing waits when there is
no small request. Imports no application. Runs on the event loop.
"""

import asyncio
import contextlib
import re
from collections.abc import Iterator

# A small request that takes longer, in seconds, waits for a model or streams: it needs the event loop rarely.
YOUNG_S = 0.25
# A client that asks for one thing after the other has its next request here within this time, in seconds.
LINGER_S = 0.005
# Longest wait, in seconds. A piece of a body has 64 KiB and more, so that a body still arrives at above 1 MB/s.
MAX_WAIT_S = 0.05

# Of every route that returns a page; items that a page has by default.
_LIMIT = re.compile(rb"(?:^|&)limit=([0-9]{1,9})(?:&|$)")
_SMALL_PAGE = 20


def asks_for_many(query: bytes) -> bool:
    """Return whether a query asks for more items than a page has by default."""
    limit = _LIMIT.search(query)
    return limit is not None and int(limit[1]) > _SMALL_PAGE


class Precedence:
    """The small requests that are being answered, and the wait of larger ones for them."""

    def __init__(self, *, young_s: float = YOUNG_S, linger_s: float = LINGER_S, max_wait_s: float = MAX_WAIT_S) -> None:
        """Start without requests.

        Args:
            young_s: Seconds for which a small request goes first, > 0.
            linger_s: Seconds for which a small request that is answered counts as another one, >= 0.
            max_wait_s: Seconds that a large request waits at most, each time, > 0.
        """
        self._young_s = young_s
        self._linger_s = linger_s
        self._max_wait_s = max_wait_s
        self._young: set[object] = set()
        self._is_free = asyncio.Event()
        self._is_free.set()

    @contextlib.contextmanager
    def small(self) -> Iterator[None]:
        """Count the block as a small request that is being answered."""
        request, loop = object(), asyncio.get_running_loop()
        self._young.add(request)
        self._is_free.clear()
        aged = loop.call_later(self._young_s, self._forget, request)
        try:
            yield
        finally:
            aged.cancel()
            if request in self._young:
                loop.call_later(self._linger_s, self._forget, request)

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
