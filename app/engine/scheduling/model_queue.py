"""The requests of one model: lanes by shape, and the measured speed of their steps.

Pure Python, imports no torch. The batcher calls it, under the engine's lock.
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from app.engine.request import MIN_ROWS, EngineRequest, Priority, Shape

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
class _Lane:
    """The requests of one model, priority and shape, in the order of submission.

    They are admitted in that order, so that the running ones are always the first.

    Attributes:
        credit: Cost that its steps may still have in this round of the deficit round robin, >= 0.
        is_served: Whether it has the round's turn and got its quantum.
    """

    shape: Shape
    requests: list[EngineRequest] = field(default_factory=list)
    credit: float = 0.0
    is_served: bool = False

    def fill(self, batch: list[EngineRequest], max_rows: int) -> None:
        """Add its requests in order up to the first that does not fit; an empty batch always takes the first."""
        rows = num_rows(batch)
        for request in self.requests:
            rows += request.cost.rows
            if batch and rows > max_rows:
                return
            batch.append(request)


@dataclass(slots=True)
class ModelQueue:
    """Waiting and running requests of one model.

    Attributes:
        budget: Rows of one step, by shape.
        step_cost: Cost of a step, > 0 in any unit, by shape and rows.
        max_row_pixels: Largest step that fits into memory; lowered after a step that did not fit.
        lanes: Non-empty lanes by priority, in the order of their turns.
        steps: Speed of steps, preparation included.
        finishes: Speed of finishes that have turns of their own.
    """

    budget: Callable[[Shape], int]
    step_cost: Callable[[Shape, int], float] = row_pixels
    max_row_pixels: int = sys.maxsize
    lanes: dict[Priority, deque[_Lane]] = field(default_factory=lambda: {p: deque() for p in Priority})
    steps: Speed = field(default_factory=Speed)
    finishes: Speed = field(default_factory=Speed)

    def requests(self, priority: Priority) -> list[EngineRequest]:
        """List the requests that wait or run."""
        return [request for lane in self.lanes[priority] for request in lane.requests]

    def num_waiting(self, priority: Priority) -> int:
        """Count the requests that are not admitted yet."""
        return sum(request.started_at is None for request in self.requests(priority))

    def max_rows(self, shape: Shape) -> int:
        """Return the rows of a step: the budget, or fewer where memory is the limit."""
        return min(self.budget(shape), max(MIN_ROWS, self.max_row_pixels // math.prod(shape)))

    def append(self, request: EngineRequest) -> None:
        """Put a request at the end of its lane; a new lane goes to the end of the round."""
        lanes = self.lanes[request.priority]
        lane = next((lane for lane in lanes if lane.shape == request.cost.shape), None)
        if lane is None:
            lane = _Lane(request.cost.shape)
            lanes.append(lane)
        lane.requests.append(request)

    def keep(self, is_kept: Callable[[EngineRequest], bool]) -> None:
        """Remove all other requests, and the lanes that become empty."""
        for priority, lanes in self.lanes.items():
            for lane in lanes:
                lane.requests = [request for request in lane.requests if is_kept(request)]
            self.lanes[priority] = deque(lane for lane in lanes if lane.requests)

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
        again. The leading lane pays for its own rows; requests that fill the remaining rows are free.
        """
        lane = self._next_lane(lead)
        lane.credit -= self._cost_of_step(lane)
        requests: list[EngineRequest] = []
        max_rows = self.max_rows(lane.shape)
        lane.fill(requests, max_rows)
        for priority in Priority:
            for other in self.lanes[priority]:
                if priority != lead and other.shape == lane.shape:
                    other.fill(requests, max_rows)
        return requests

    def expected_s(self, requests: Sequence[EngineRequest]) -> float:
        """Estimate the remaining device time of these requests of this model, in seconds."""
        if not self.steps.done_row_pixels:
            return len(requests) * INITIAL_SERVICE_S
        finishes = sum(finish_pixels(request) for request in requests if request.cost.finishes_separately)
        return self.steps.seconds(sum(map(_row_pixels_left, requests))) + self.finishes.seconds(finishes)

    def _next_lane(self, priority: Priority) -> _Lane:
        """Choose the lane that steps: deficit round robin.

        The quantum is the cost of the most expensive step at hand, so that every lane steps at least once a round.

        Source:
            Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", 1996.
        """
        lanes = self.lanes[priority]
        quantum = max(map(self._cost_of_step, lanes))
        while True:
            lane = lanes[0]
            if not lane.is_served:
                lane.is_served = True
                lane.credit += quantum
            if lane.credit >= self._cost_of_step(lane):
                return lane
            lane.is_served = False
            lanes.rotate(-1)

    def _cost_of_step(self, lane: _Lane) -> float:
        requests: list[EngineRequest] = []
        lane.fill(requests, self.max_rows(lane.shape))
        return self.step_cost(lane.shape, num_rows(requests))


def num_rows(requests: Iterable[EngineRequest]) -> int:
    """Count the rows of a step of these requests."""
    return sum(request.cost.rows for request in requests)


def finish_pixels(request: EngineRequest) -> int:
    """Return the work of finishing a request: that of one row, whatever the rows of its steps."""
    return row_pixels(request.cost.shape, 1)


def _row_pixels_left(request: EngineRequest) -> int:
    if request.stepped_at is not None:
        return 0
    cost = request.cost
    return max(1, cost.steps - request.steps_done) * row_pixels(cost.shape, cost.rows)
