"""The interface between the engine and a model.

Imports no torch. The device thread calls every method, one at a time.
"""

from collections.abc import Sequence
from typing import Protocol

from app.engine.request import EngineRequest


class Runner(Protocol):
    """One model in three phases; between them its data of a request is in `request.state`."""

    def prepare(self, request: EngineRequest) -> None:
        """Build `request.state` from `request.payload`. An exception fails this request alone."""

    def step(self, requests: Sequence[EngineRequest]) -> int | None:
        """Advance every request by one step, in one forward where possible.

        Returns:
            The rows that only padded the forwards; None counts as none.

        All requests have one kind: shape and weights. A step that raises leaves the states of all of them unchanged:
        after running out of memory the engine takes the same step again with fewer requests. Any other exception fails
        them all.
        """

    def is_finished(self, request: EngineRequest) -> bool:
        """Return, after a step, whether it was the request's last one."""

    def finish(self, request: EngineRequest) -> object:
        """Turn the state into the result for the caller. An exception fails this request alone.

        Called right after the last step, or in a turn of its own where `request.cost.finishes_separately`.
        """


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a runner's error is one that fewer requests may avoid; torch's is known by its name."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
