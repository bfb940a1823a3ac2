"""Requests a minute of each caller on this node, by the library `limits`.

Imports no HTTP and no database. Used on the event loop.
"""

import math
import time
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
