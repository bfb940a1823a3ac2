"""What the engine asks of a model.

Knows nothing of queues and threads: every method is called by the device thread, one at a time.
"""

from collections.abc import Sequence
from typing import Protocol

from app.engine.request import EngineRequest


class Runner(Protocol):
    """One model in three phases; what it keeps of a request between them lives in `request.state`."""

    def prepare(self, request: EngineRequest) -> None:
        """Build `request.state` from `request.payload`. An exception fails this request alone."""

    def step(self, requests: Sequence[EngineRequest]) -> None:
        """Advance every request by one step, in one forward if it can.

        All requests are of one shape. A step that raises leaves the states of all of them untouched: after running
        out of memory the engine takes the same step again with fewer requests. Any other exception fails them all.
        """

    def is_finished(self, request: EngineRequest) -> bool:
        """Tell after a step whether this request took its last one."""

    def finish(self, request: EngineRequest) -> object:
        """Turn the state into the result for the caller. An exception fails this request alone.

        Called right after the last step, or in a turn of its own where the request's `Demand.finishes_apart` says so.
        """
