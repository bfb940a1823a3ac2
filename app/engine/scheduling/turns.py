"""Whose turn it is between priorities, and which of the requests whose steps are done is finished next.

Pure Python, knows no tensors and no models: the batcher calls it, under the engine's lock.
"""

from collections.abc import Collection, Iterable

from app.engine.request import EngineRequest, Priority

# Endless interactive work leaves this share of the turns to background work: an eighth slows a click a little and
# keeps a dataset moving.
BACKGROUND_EVERY = 8


class PriorityTurns:
    """Interactive work goes first, but for one turn in `BACKGROUND_EVERY` while both have work."""

    def __init__(self) -> None:
        """Begin to count."""
        self._turns_without_background = 0  # in a row, while there was background work

    def take(self, at_work: Collection[Priority]) -> Priority:
        """Choose among the priorities that have work, >= 1 of them."""
        if len(at_work) == 1 or self._turns_without_background == BACKGROUND_EVERY - 1:
            self._turns_without_background = 0
            return max(at_work)
        self._turns_without_background += 1
        return min(at_work)


class FinishingLine:
    """Requests of all models that took their last step and whose result costs a turn of its own."""

    def __init__(self) -> None:
        """Start empty."""
        self._requests: list[EngineRequest] = []  # in the order in which their steps ended
        self._turns = PriorityTurns()

    def append(self, request: EngineRequest) -> None:
        """Put a request at the end."""
        self._requests.append(request)

    def take_turn(self) -> EngineRequest | None:
        """Choose who is finished now, the oldest of the priority whose turn it is; it stays until it is removed."""
        at_work = {request.priority for request in self._requests}
        if not at_work:
            return None
        priority = self._turns.take(at_work)
        return next(request for request in self._requests if request.priority == priority)

    def remove(self, request: EngineRequest) -> None:
        """Let a request go, if it is here."""
        self._requests = [other for other in self._requests if other is not request]

    def drop_cancelled(self) -> None:
        """Let the cancelled requests go; not while one of them is being finished."""
        for request in self._requests:
            if request.is_cancelled:
                request.abandon()
        self._requests = [request for request in self._requests if not request.settled]

    def requests(self, model: str, priorities: Iterable[Priority] = Priority) -> list[EngineRequest]:
        """List a model's requests."""
        wanted = set(priorities)
        return [request for request in self._requests if request.model == model and request.priority in wanted]

    def drain(self) -> list[EngineRequest]:
        """Empty the line and return what was in it."""
        requests, self._requests = self._requests, []
        return requests
