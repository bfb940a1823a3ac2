"""Waiting places of callers, turns between priorities, and the queue of requests finished in turns of their own.

Pure Python, imports no torch. The batcher calls it, under the engine's lock; `has_place` has no state.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from app.engine.request import EngineRequest, Priority

# Background work gets this share of the turns under endless interactive work: an eighth delays a click a little and
# lets a dataset progress.
BACKGROUND_EVERY = 8


def has_place(waiting: Mapping[str, int], caller: str, max_waiting: int) -> bool:
    """Return whether one more may wait: there are places left, or its caller has less than an even share of them.

    A caller that waits alone may take all places. Those that come then have as many places again, so that no caller
    can keep others out; a queue never has more than twice `max_waiting`.

    Args:
        waiting: How many wait by caller, >= 0 each.
        caller: Who asks.
        max_waiting: The places, >= 1.
    """
    total = sum(waiting.values())
    if total < max_waiting:
        return True
    num_callers = sum(num > 0 for other, num in waiting.items() if other != caller) + 1
    share = max(1, max_waiting // num_callers)
    return waiting.get(caller, 0) < share and total < 2 * max_waiting


class PriorityTurns:
    """Alternates priorities: interactive first, except one turn in `BACKGROUND_EVERY` while both have work."""

    def __init__(self) -> None:
        """Start with a count of zero."""
        self._turns_without_background = 0  # in a row, while there was background work

    def take(self, at_work: Collection[Priority]) -> Priority:
        """Choose among the priorities that have work, >= 1 of them."""
        if len(at_work) == 1 or self._turns_without_background == BACKGROUND_EVERY - 1:
            self._turns_without_background = 0
            return max(at_work)
        self._turns_without_background += 1
        return min(at_work)


class DecodeQueue:
    """Requests of all models that took their last step and are finished in a turn of their own.

    The callers of a priority take turns, one request at a time.
    """

    def __init__(self) -> None:
        """Start empty."""
        # Non-empty, in the order of their turns; each has its requests in the order in which their steps ended.
        self._lanes: dict[tuple[Priority, str], deque[EngineRequest]] = {}
        self._turns = PriorityTurns()

    def __bool__(self) -> bool:
        """Whether there are any requests."""
        return bool(self._lanes)

    def append(self, request: EngineRequest) -> None:
        """Put a request at the end of its caller's."""
        self._lanes.setdefault((request.priority, request.caller), deque()).append(request)

    def take_turn(self) -> EngineRequest | None:
        """Return the request that has the turn; it stays until it is removed."""
        at_work = {priority for priority, _ in self._lanes}
        if not at_work:
            return None
        priority = self._turns.take(at_work)
        return next(lane[0] for (other, _), lane in self._lanes.items() if other == priority)

    def remove(self, request: EngineRequest) -> None:
        """Remove a request, if it is here; its caller's turn is over."""
        key = (request.priority, request.caller)
        if request not in self._lanes.get(key, ()):
            return
        lane = self._lanes.pop(key)
        lane.remove(request)
        if lane:
            self._lanes[key] = lane

    def drop_cancelled(self) -> None:
        """Remove cancelled requests; must not be called while one of them is being finished."""
        for key, lane in list(self._lanes.items()):
            for request in lane:
                if request.is_cancelled:
                    request.abandon()
            self._lanes[key] = deque(request for request in lane if not request.resolved)
            if not self._lanes[key]:
                del self._lanes[key]

    def requests(self, model: str, priorities: Iterable[Priority] = Priority) -> list[EngineRequest]:
        """List a model's requests."""
        wanted = set(priorities)
        return [
            request
            for (priority, _), lane in self._lanes.items()
            for request in lane
            if priority in wanted and request.model == model
        ]

    def drain(self) -> list[EngineRequest]:
        """Remove all requests and return them."""
        requests = [request for lane in self._lanes.values() for request in lane]
        self._lanes.clear()
        return requests
