"""One model's requests: in lanes by shape while they step, and how long they take.

Pure Python, knows no tensors and no other models: the batcher calls it, under the engine's lock.
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from app.engine.request import EngineRequest, Priority
from app.engine.scheduling.row_budget import MIN_ROWS, Shape

# What a request takes before its model has stepped at all: about one image of the demo pack on two cores.
INITIAL_SERVICE_S = 1.0

# Weight of the past in a measured speed at each turn: about the last twenty turns count.
SPEED_MEMORY = 0.95


def row_pixels(shape: Shape, rows: int) -> int:
    """Measure the work in `rows` rows of a shape: what a step costs where nothing better is known."""
    return rows * math.prod(shape)


@dataclass(slots=True)
class Speed:
    """How long work takes, as measured; the past fades.

    Attributes:
        spent_s: Seconds of the last turns, and
        done_row_pixels: their work.
    """

    spent_s: float = 0.0
    done_row_pixels: float = 0.0

    def learn(self, work: int, took_s: float) -> None:
        """Learn from row pixels that took so many seconds, > 0."""
        self.spent_s = SPEED_MEMORY * self.spent_s + took_s
        self.done_row_pixels = SPEED_MEMORY * self.done_row_pixels + work

    def seconds(self, work: int) -> float:
        """Estimate how long so many row pixels take; 0 before anything was measured."""
        return work * self.spent_s / self.done_row_pixels if self.done_row_pixels else 0.0


@dataclass(slots=True)
class _Lane:
    """The requests of one model, priority and shape, in the order they came.

    They are admitted in that order, so that those which run are always the first ones.

    Attributes:
        credit: What its steps may still cost in this round of the deficit round robin, >= 0.
        is_served: It has the round's turn, and has earned its quantum.
    """

    shape: Shape
    requests: list[EngineRequest] = field(default_factory=list)
    credit: float = 0.0
    is_served: bool = False

    def fill(self, batch: list[EngineRequest], max_rows: int) -> None:
        """Add its requests in order up to the first that does not fit; into an empty batch the first always does."""
        rows = num_rows(batch)
        for request in self.requests:
            rows += request.demand.rows
            if batch and rows > max_rows:
                return
            batch.append(request)


@dataclass(slots=True)
class ModelQueue:
    """Waiting and running requests of one model.

    Attributes:
        budget: Rows of one step, by shape.
        cost: What a step costs, > 0 in any unit, by shape and rows.
        max_row_pixels: The most that fits into memory; lowered by experience.
        lanes: Those with requests, each priority's in the order in which they take turns.
        steps: How long steps take, preparation included.
        finishes: How long finishing takes where it has turns of its own.
    """

    budget: Callable[[Shape], int]
    cost: Callable[[Shape, int], float] = row_pixels
    max_row_pixels: int = sys.maxsize
    lanes: dict[Priority, deque[_Lane]] = field(default_factory=lambda: {p: deque() for p in Priority})
    steps: Speed = field(default_factory=Speed)
    finishes: Speed = field(default_factory=Speed)

    def requests(self, priority: Priority) -> list[EngineRequest]:
        """List what waits or runs."""
        return [request for lane in self.lanes[priority] for request in lane.requests]

    def num_waiting(self, priority: Priority) -> int:
        """Count what was not admitted yet."""
        return sum(request.started_at is None for request in self.requests(priority))

    def max_rows(self, shape: Shape) -> int:
        """Return the rows that a step may take, as far as memory goes."""
        return min(self.budget(shape), max(MIN_ROWS, self.max_row_pixels // math.prod(shape)))

    def append(self, request: EngineRequest) -> None:
        """Put a request at the end of its lane, and a new lane at the end of the round."""
        lanes = self.lanes[request.priority]
        lane = next((lane for lane in lanes if lane.shape == request.demand.shape), None)
        if lane is None:
            lane = _Lane(request.demand.shape)
            lanes.append(lane)
        lane.requests.append(request)

    def keep(self, is_kept: Callable[[EngineRequest], bool]) -> None:
        """Let the other requests go, and the lanes that they leave empty."""
        for priority, lanes in self.lanes.items():
            for lane in lanes:
                lane.requests = [request for request in lane.requests if is_kept(request)]
            self.lanes[priority] = deque(lane for lane in lanes if lane.requests)

    def drop_cancelled(self, *, is_between_steps: bool) -> None:
        """Let the cancelled requests go; during a step only those that wait, as it may work on the others' state."""
        for priority in Priority:
            for request in self.requests(priority):
                if request.is_cancelled and (is_between_steps or request.started_at is None):
                    request.abandon()
        self.keep(lambda request: not request.settled)

    def take_requests(self, lead: Priority) -> list[EngineRequest]:
        """Choose the requests of the next step; the leading priority must have some.

        A running request that finds no room stays in its lane with its state: it is preempted until there is room
        again. The lane that leads pays for its own rows; what rides along in room left over is free.
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
        """Estimate the device time that these requests of this model still take."""
        if not self.steps.done_row_pixels:
            return len(requests) * INITIAL_SERVICE_S
        finishes = sum(finish_pixels(request) for request in requests if request.demand.finishes_apart)
        return self.steps.seconds(sum(map(_row_pixels_left, requests))) + self.finishes.seconds(finishes)

    def _next_lane(self, priority: Priority) -> _Lane:
        """Choose the lane that steps: deficit round robin.

        The quantum is the cost of the dearest step at hand, so that every lane steps at least once a round.

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
        return self.cost(lane.shape, num_rows(requests))


def num_rows(requests: Iterable[EngineRequest]) -> int:
    """Count the rows of a step of these requests."""
    return sum(request.demand.rows for request in requests)


def finish_pixels(request: EngineRequest) -> int:
    """Measure the work of finishing a request: that of one row, however many its steps have."""
    return row_pixels(request.demand.shape, 1)


def _row_pixels_left(request: EngineRequest) -> int:
    if request.stepped_at is not None:
        return 0
    demand = request.demand
    return max(1, demand.steps - request.steps_done) * row_pixels(demand.shape, demand.rows)
