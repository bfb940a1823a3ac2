"""The requests of one model: lanes by priority, caller and shape, and the measured speed of their steps.

Pure Python, imports no torch. The batcher calls it, under the engine's lock.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.engine.request import MIN_ROWS, EngineRequest, Priority, Shape
from app.engine.scheduling.lanes import Lanes, Step, StepCosts, pay, shared_rows

# Assumed seconds of a request before its model has stepped at all: about one image of the demo pack on two cores.
INITIAL_SERVICE_S = 1.0

# Weight of the past in a measured speed at each turn: about the last twenty turns count.
SPEED_MEMORY = 0.95


def row_pixels(shape: Shape, rows: int) -> int:
    """Return the work in `rows` rows of a shape: the cost of a step until it is measured."""
    return rows * math.prod(shape)


@dataclass(slots=True)
class Speed:
    """Measured speed of a model's steps or finishes, with exponentially decaying weights.

    Attributes:
        spent_s: Weighted seconds of past turns.
        done_row_pixels: Weighted work of past turns.
    """

    spent_s: float = 0.0
    done_row_pixels: float = 0.0

    def record(self, work: int, took_s: float) -> None:
        """Add a turn that did `work` row pixels in `took_s` seconds, > 0."""
        self.spent_s = SPEED_MEMORY * self.spent_s + took_s
        self.done_row_pixels = SPEED_MEMORY * self.done_row_pixels + work

    def seconds(self, work: int) -> float:
        """Estimate the seconds of `work` row pixels; 0 before anything was measured."""
        return work * self.spent_s / self.done_row_pixels if self.done_row_pixels else 0.0


@dataclass(slots=True)
class ModelQueue:
    """Waiting and running requests of one model.

    Attributes:
        budget: Rows of one step, by shape.
        step_cost: Cost of a step, > 0 in any unit, by shape and rows.
        max_row_pixels: Largest step that fits into memory; lowered after a step that did not fit.
        lanes: Waiting and running requests by priority.
        steps: Speed of steps, preparation included.
        finishes: Speed of finishes that have turns of their own.
    """

    budget: Callable[[Shape], int]
    step_cost: Callable[[Shape, int], float] = row_pixels
    max_row_pixels: int = sys.maxsize
    lanes: dict[Priority, Lanes] = field(default_factory=lambda: {p: Lanes() for p in Priority})
    steps: Speed = field(default_factory=Speed)
    finishes: Speed = field(default_factory=Speed)

    def requests(self, priority: Priority) -> list[EngineRequest]:
        """List the requests that wait or run."""
        return list(self.lanes[priority].requests())

    def max_rows(self, shape: Shape) -> int:
        """Return the rows of a step: the budget, or fewer where memory is the limit."""
        return min(self.budget(shape), max(MIN_ROWS, self.max_row_pixels // math.prod(shape)))

    def append(self, request: EngineRequest) -> None:
        """Put a request at the end of its lane."""
        self.lanes[request.priority].append(request)

    def remove(self, request: EngineRequest) -> None:
        """Remove a request, if it is here."""
        self.lanes[request.priority].remove(request)

    def keep(self, is_kept: Callable[[EngineRequest], bool]) -> None:
        """Remove all other requests."""
        for lanes in self.lanes.values():
            lanes.keep(is_kept)

    def drop_cancelled(self, *, is_between_steps: bool) -> None:
        """Remove cancelled requests; during a step only waiting ones, because the step uses the others' state."""
        for priority in Priority:
            for request in self.requests(priority):
                if request.is_cancelled and (is_between_steps or request.started_at is None):
                    request.abandon()
        self.keep(lambda request: not request.resolved)

    def take_requests(self, lead: Priority) -> list[EngineRequest]:
        """Choose the requests of the next step; the leading priority must have some.

        A running request that does not fit stays in its lane with its state: it is preempted until there are rows
        again. Rows that those who pay leave are free, first for their own priority, as far as it makes them no slower.
        """
        costs, step = StepCosts(self.max_rows, self.step_cost), Step()
        turn = self.lanes[lead].take_turn(costs)
        shape = turn[0].shape
        max_rows = costs.max_rows(shape)
        company = step.deal_once(turn, max_rows)
        shared = shared_rows(company, costs)
        step.deal_extra(company, shared)
        lanes = self.lanes[lead].of_shape(shape)
        step.deal_extra([lane for lane in lanes if not lane.can_pay], shared)
        pay(step.rows, costs)
        if len(lanes) == 1 or len(step.requests) == sum(len(lane.requests) for lane in lanes):
            shared = max_rows  # no caller was left out for the sake of another
        for priority in Priority:
            if priority != lead:
                step.deal_extra(self.lanes[priority].of_shape(shape), shared)
        return step.requests

    def expected_s(self, requests: Sequence[EngineRequest]) -> float:
        """Estimate the remaining device time of these requests of this model, in seconds."""
        if not self.steps.done_row_pixels:
            return len(requests) * INITIAL_SERVICE_S
        finishes = sum(finish_pixels(request) for request in requests if request.cost.finishes_separately)
        return self.steps.seconds(sum(map(_row_pixels_left, requests))) + self.finishes.seconds(finishes)

    def expected_wait_s(self, ahead: Sequence[EngineRequest], caller: str) -> float:
        """Estimate the seconds that these requests of one priority take the device before a new one of a caller begins.

        While the caller's own requests are served, every other caller gets as much of the device as they need.
        """
        by_caller: dict[str, list[EngineRequest]] = defaultdict(list)
        for request in ahead:
            by_caller[request.caller].append(request)
        own_s = self.expected_s(by_caller[caller])
        return sum(min(own_s, self.expected_s(requests)) for requests in by_caller.values())


def finish_pixels(request: EngineRequest) -> int:
    """Return the work of finishing a request: that of one row, whatever the rows of its steps."""
    return row_pixels(request.cost.shape, 1)


def _row_pixels_left(request: EngineRequest) -> int:
    if request.stepped_at is not None:
        return 0
    return row_pixels(request.cost.shape, max(request.rows, request.cost.rows_left(request.steps_done)))
