"""How much one caller may use: the bounds, and what of a caller runs at the moment on this node.

Imports no HTTP and no database. `Shares` is immutable; a `Running` is used on the event loop alone.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace

from app.errors import RateLimited


@dataclass(frozen=True, slots=True)
class Shares:
    """The bounds of one caller; None: no bound.

    Attributes:
        requests_per_minute: Requests in any minute on one node, >= 1.
        concurrent_requests: Requests that run at once on one node, >= 1.
        concurrent_images: Images of `/generate` that are drawn at once on one node, >= 1; jobs do not count.
        pixel_steps_per_day: Images x steps x width x height that are accepted in a day (UTC) over all nodes, >= 0.
        stored_mb: Megabytes of images and models that may be stored when new work is accepted, >= 0.
    """

    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    concurrent_images: int | None = None
    pixel_steps_per_day: int | None = None
    stored_mb: int | None = None

    def with_own(self, own: Mapping[str, int] | None) -> "Shares":
        """Return the shares of a key: its own bounds, and these where it has none.

        Args:
            own: Bounds by name. Names that this release does not know are ignored.
        """
        known = {field.name for field in fields(self)}
        return replace(self, **{name: value for name, value in (own or {}).items() if name in known})

    def given(self) -> dict[str, int]:
        """Return the bounds that there are, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


UNBOUNDED = Shares()


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
