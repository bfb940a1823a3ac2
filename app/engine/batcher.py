"""Who steps next: waiting and running requests of every model.

Pure Python, knows no tensors and no threads: the engine calls it under its own lock. Each turn gives one model one
step over requests of one shape, as many rows as the model's budget allows. Four rules choose them:

1. Interactive work leads every turn, but for one turn in `BACKGROUND_EVERY` while both have work.
2. Models that have work of the leading priority take turns.
3. Shapes of one model and priority share the device's time evenly, by deficit round robin.
4. Requests of one shape and priority step in the order they came. Room that the leading priority leaves is filled
   with requests of the same shape and the other priority.
"""

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from app.engine.request import EngineRequest, Priority
from app.engine.row_budget import MIN_ROWS, Shape
from app.errors import QueueFull

# Endless interactive work leaves this share of the turns to background work: an eighth slows a click a little and
# keeps a dataset moving.
BACKGROUND_EVERY = 8

# What a request takes before its model has stepped at all: about one image of the demo pack on two cores.
INITIAL_SERVICE_S = 1.0

# Weight of the past in the measured speed at each turn: about the last twenty turns count, which is an image with its
# preparation and its decoding.
SPEED_MEMORY = 0.95

MAX_RETRY_AFTER_S = 600


def row_pixels(shape: Shape, rows: int) -> int:
    """Measure the work in `rows` rows of a shape: what a step costs where nothing better is known."""
    return rows * math.prod(shape)


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests of one model that take the next step together.

    Attributes:
        requests: >= 1, all of one shape, those of the leading priority first. Together they need no more rows than
            the model's budget, unless there is only one.
        admitted: Those of them that run for the first time and want to be prepared.
    """

    model: str
    requests: list[EngineRequest]
    admitted: list[EngineRequest]


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
        num_rows = _num_rows(batch)
        for request in self.requests:
            num_rows += request.demand.rows
            if batch and num_rows > max_rows:
                return
            batch.append(request)


@dataclass(slots=True)
class _ModelQueue:
    """Waiting and running requests of one model.

    Attributes:
        budget: Rows of one step, by shape.
        cost: What a step costs, > 0 in any unit, by shape and rows.
        max_row_pixels: The most that fits into memory; lowered by experience.
        lanes: Those with requests, each priority's in the order in which they take turns.
        spent_s: Seconds of the last turns, and
        done_row_pixels: their work; both fade.
    """

    budget: Callable[[Shape], int]
    cost: Callable[[Shape, int], float] = row_pixels
    max_row_pixels: int = sys.maxsize
    lanes: dict[Priority, deque[_Lane]] = field(default_factory=lambda: {p: deque() for p in Priority})
    spent_s: float = 0.0
    done_row_pixels: float = 0.0

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

    def expected_s(self, priorities: Iterable[Priority]) -> float:
        """Estimate the device time of the steps that these requests have left."""
        requests = [request for priority in priorities for request in self.requests(priority)]
        if not self.done_row_pixels:
            return len(requests) * INITIAL_SERVICE_S
        return sum(map(_row_pixels_left, requests)) * self.spent_s / self.done_row_pixels

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
        return self.cost(lane.shape, _num_rows(requests))


class Batcher:
    """Decides at each turn which model steps, and which of its requests."""

    def __init__(self, *, max_queue_size: int) -> None:
        """Start empty.

        Args:
            max_queue_size: Waiting requests per model and priority, so that background work cannot fill the
                queue for the others; >= 1.
        """
        self._max_queue_size = max_queue_size
        self._queues: dict[str, _ModelQueue] = {}
        self._turns: dict[Priority, deque[str]] = {priority: deque() for priority in Priority}
        self._turns_without_background = 0  # in a row, while there was background work

    def add_model(self, name: str, *, max_rows: int = 1) -> None:
        """Make room for the requests of a model, `max_rows` rows of any shape in one step."""
        self._queues[name] = _ModelQueue(budget=lambda _shape: max_rows)
        for turns in self._turns.values():
            turns.append(name)

    def set_row_budget(
        self, name: str, budget: Callable[[Shape], int], cost: Callable[[Shape, int], float] = row_pixels
    ) -> None:
        """Change how many rows a step takes, from the next step on; see `Engine.set_row_budget`."""
        queue = self._queues[name]
        queue.budget = budget
        queue.cost = cost

    def reduce_rows(self, requests: Sequence[EngineRequest]) -> int | None:
        """Learn that a step over these requests ran out of memory.

        Returns:
            The rows that a step of their shape may take from now on, at most half of theirs and >= `MIN_ROWS`; None
            if there is no smaller step to take.
        """
        num_rows = _num_rows(requests)
        if len(requests) == 1 or num_rows <= MIN_ROWS:
            return None
        queue, shape = self._queues[requests[0].model], requests[0].demand.shape
        queue.max_row_pixels = row_pixels(shape, num_rows) // 2
        return queue.max_rows(shape)

    def submit(self, request: EngineRequest) -> None:
        """Put a request at the end of its queue.

        Raises:
            QueueFull: As many as may wait are waiting; says when to come again.
        """
        queue = self._queues[request.model]
        if queue.num_waiting(request.priority) >= self._max_queue_size:
            queue.drop_cancelled(is_between_steps=False)
        if queue.num_waiting(request.priority) >= self._max_queue_size:
            wait_s = self.expected_wait_s(request.model, request.priority)
            raise QueueFull(retry_after_s=min(MAX_RETRY_AFTER_S, max(1, math.ceil(wait_s))))
        queue.append(request)

    def next_batch(self) -> Batch | None:
        """Choose the next step's model and requests, between two steps; None when there is nothing to do."""
        for queue in self._queues.values():
            queue.drop_cancelled(is_between_steps=True)
        lead = self._next_lead()
        if lead is None:
            return None
        turns = self._turns[lead]
        name = next(name for name in turns if self._queues[name].lanes[lead])
        turns.remove(name)
        turns.append(name)
        requests = self._queues[name].take_requests(lead)
        admitted = [request for request in requests if request.started_at is None]
        for request in admitted:
            request.started_at = time.monotonic()
        return Batch(name, requests, admitted)

    def retire(self, request: EngineRequest) -> None:
        """Take a request out of the running ones."""
        self._queues[request.model].keep(lambda other: other is not request)

    def learn(self, batch: Batch, took_s: float) -> None:
        """Learn the model's speed from the seconds that a turn took, > 0."""
        queue = self._queues[batch.model]
        work = row_pixels(batch.requests[0].demand.shape, _num_rows(batch.requests))
        queue.spent_s = SPEED_MEMORY * queue.spent_s + took_s
        queue.done_row_pixels = SPEED_MEMORY * queue.done_row_pixels + work

    def expected_wait_s(self, name: str, priority: Priority = Priority.INTERACTIVE) -> float:
        """Estimate the seconds until all that goes before a new request of a model is done, >= 0.

        That is what waits and runs of this model and of this priority or a higher one; that other models take turns
        with it is left out.
        """
        return self._queues[name].expected_s(other for other in Priority if other <= priority)

    def drain(self) -> list[EngineRequest]:
        """Empty all queues and return what was in them."""
        requests = [
            request for queue in self._queues.values() for priority in Priority for request in queue.requests(priority)
        ]
        for queue in self._queues.values():
            queue.keep(lambda _request: False)
        return requests

    def depth(self) -> dict[str, int]:
        """Count the waiting requests of every model."""
        return {name: sum(map(queue.num_waiting, Priority)) for name, queue in self._queues.items()}

    def _next_lead(self) -> Priority | None:
        """Choose the priority whose turn it is; None when there is no work."""
        at_work = [p for p in Priority if any(queue.lanes[p] for queue in self._queues.values())]
        if not at_work:
            return None
        if len(at_work) == 1 or self._turns_without_background == BACKGROUND_EVERY - 1:
            self._turns_without_background = 0
            return at_work[-1]
        self._turns_without_background += 1
        return at_work[0]


def _num_rows(requests: Iterable[EngineRequest]) -> int:
    return sum(request.demand.rows for request in requests)


def _row_pixels_left(request: EngineRequest) -> int:
    demand = request.demand
    return max(1, demand.steps - request.steps_done) * row_pixels(demand.shape, demand.rows)
