"""What callers use on this node at the moment: requests a minute, by the library `limits`, and what of each one runs.

Imports no HTTP and no database. Used on the event loop alone.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from app.access.caller import Caller
from app.errors import RateLimited

WINDOW_S = 60


class Rate(NamedTuple):
    """What is left of a caller's minute.

    Attributes:
        limit: Requests in any minute.
        left: Requests that would be accepted now.
        reset_s: Seconds until one more is, >= 1.
    """

    limit: int
    left: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """Return the fields of the answer (draft-ietf-httpapi-ratelimit-headers-10)."""
        return {
            "RateLimit-Policy": f'"requests";q={self.limit};w={WINDOW_S}',
            "RateLimit": f'"requests";r={self.left};t={self.reset_s}',
        }


class RateBook:
    """Counts the requests of callers who have a bound; a moving window, so that no minute has more."""

    def __init__(self) -> None:
        """Start without requests."""
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, caller: Caller) -> Rate | None:
        """Count one request, and return what is left; None where the caller has no bound.

        Raises:
            RateLimited: The minute is used up; the request does not count.
        """
        limit = caller.shares.requests_per_minute
        if limit is None:
            return None
        item = RateLimitItemPerMinute(limit)
        accepted = self._limiter.hit(item, caller.id)
        stats = self._limiter.get_window_stats(item, caller.id)
        rate = Rate(limit, stats.remaining, max(1, math.ceil(stats.reset_time - time.time())))
        if not accepted:
            detail = f"At most {limit} requests a minute are accepted from one caller."
            raise RateLimited(detail, retry_after_s=rate.reset_s, headers=rate._replace(left=0).headers())
        return rate


class Running:
    """Counts what runs of each caller; remembers nobody of whom nothing runs."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with nothing that runs.

        Args:
            clock: Seconds from any origin.
        """
        self._clock = clock
        self._begun: dict[str, list[float]] = {}

    @contextmanager
    def hold(self, caller_id: str, number: int, limit: int | None, things: str) -> Iterator[None]:
        """Count `number` more things of a caller until the block ends.

        Args:
            caller_id: Whose they are.
            number: >= 0.
            limit: Most things of this caller at once; None: any number.
            things: What is counted, in the plural, for the error.

        Raises:
            RateLimited: It would be more than `limit`. The time to wait is what those that run have taken so far, in
                the mean.
        """
        if limit is None:
            yield
            return
        begun = self._begun.setdefault(caller_id, [])
        now = self._clock()
        if len(begun) + number > limit:
            age_s = sum(now - at for at in begun) / len(begun) if begun else 0.0
            self._forget_idle(caller_id)
            detail = f"At most {limit} {things} may run for one caller at once, and {len(begun)} run. Wait for some."
            raise RateLimited(detail, retry_after_s=max(1, math.ceil(age_s)))
        begun.extend([now] * number)
        try:
            yield
        finally:
            for _ in range(number):
                begun.remove(now)
            self._forget_idle(caller_id)

    def _forget_idle(self, caller_id: str) -> None:
        if not self._begun[caller_id]:
            del self._begun[caller_id]
