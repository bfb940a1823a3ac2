"""How many requests go before one that waits: an observer of the engine, which says it to followers as it changes.

Pure Python, imports no torch. Reports come on the thread of `Engine.submit`, on the device thread, and on the thread
that cancels a request; `follow` may be called on any. A lock orders them, and followers are called under it: they must
return at once and must not call back.
"""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from app.engine.observer import StepTaken
from app.engine.request import EngineRequest, Priority

OnPosition = Callable[[int], object]


@dataclass(slots=True, eq=False)
class _Place:
    """An unfinished request; `told` is the position that its follower knows."""

    request: EngineRequest
    on_change: OnPosition | None = None
    told: int = 0


class QueuePositions:
    """The interactive requests of one model that are not finished, in the order of submission.

    A position is the number of requests that go before a waiting one: those of its caller that were submitted before
    it, and of every other caller as many as may precede it while callers share the device evenly. Requests that run
    count until they are finished. One pass over the unfinished requests computes all positions, whenever one of them
    ends while somebody follows.
    """

    def __init__(self, model: str) -> None:
        """Watch one model, by its name in the engine."""
        self._model = model
        self._lock = threading.Lock()
        self._places: dict[Future[Any], _Place] = {}
        self._num_followed = 0

    def follow(self, future: "Future[Any]", on_change: OnPosition) -> None:
        """Tell the position of a submitted request until it begins.

        Args:
            future: What `Engine.submit` returned.
            on_change: Called with the position, >= 0, at once if it is above 0, then whenever it changes.
        """
        with self._lock:
            place = self._places.get(future)
            if place is None or place.request.started_at is not None:
                return
            place.on_change = on_change
            self._num_followed += 1
            self._tell()

    def submitted(self, request: EngineRequest) -> None:
        """Add a request to those that go before later ones."""
        if request.model != self._model or request.priority is not Priority.INTERACTIVE:
            return
        with self._lock:
            self._places[request.future] = _Place(request)
        request.future.add_done_callback(self._leave)  # at once, if it is done

    def admitted(self, request: EngineRequest) -> None:
        """Stop telling the position of a request: it begins."""
        with self._lock:
            if (place := self._places.get(request.future)) is not None:
                self._unfollow(place)

    def stepped(self, step: StepTaken) -> None:
        """Do nothing: a step changes no position."""

    def finished(self, request: EngineRequest, seconds: float) -> None:
        """Do nothing: the request's future says that it is done."""

    def _leave(self, future: "Future[Any]") -> None:
        with self._lock:
            self._unfollow(self._places.pop(future))
            if self._num_followed:
                self._tell()

    def _unfollow(self, place: _Place) -> None:
        self._num_followed -= place.on_change is not None
        place.on_change = None

    def _tell(self) -> None:
        ahead: Counter[str] = Counter()
        for place in self._places.values():
            caller = place.request.caller
            if place.on_change is not None:
                own = ahead[caller]
                others = (min(number, own + 1) for other, number in ahead.items() if other != caller)
                position = own + sum(others)
                if position != place.told:
                    place.told = position
                    place.on_change(position)
            ahead[caller] += 1
