"""Who has the device's next turn: waiting, running and finishing requests of every model.

Pure Python, knows no tensors and no threads: the engine calls it under its own lock. A step gives one model one
step over requests of one shape, as many rows as the model's budget allows. Four rules choose them:

1. Interactive work leads every step, but for one in `BACKGROUND_EVERY` while both have work.
2. Models that have work of the leading priority take turns.
3. Shapes of one model and priority share the device's time evenly, by deficit round robin.
4. Requests of one shape and priority step in the order they came. Room that the leading priority leaves is filled
   with requests of the same shape and the other priority.

Requests whose result costs more than a moment (`Demand.finishes_apart`) leave their lane after the last step and are
finished one at a time: at most one between two steps, without pause when nothing wants to step; by rule 1, then in the
order in which they took their last steps.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.engine.request import EngineRequest, Priority
from app.engine.scheduling.model_queue import ModelQueue, finish_pixels, num_rows, row_pixels
from app.engine.scheduling.row_budget import MIN_ROWS, Shape
from app.engine.scheduling.turns import FinishingLine, PriorityTurns
from app.errors import QueueFull

MAX_RETRY_AFTER_S = 600


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


class Batcher:
    """Decides at each turn which model steps, and which of its requests."""

    def __init__(self, *, max_queue_size: int) -> None:
        """Start empty.

        Args:
            max_queue_size: Requests per model and priority that wait for their first step or to be finished; >= 1.
                Of each priority, so that background work cannot fill the queue for the others.
        """
        self._max_queue_size = max_queue_size
        self._queues: dict[str, ModelQueue] = {}
        self._turns: dict[Priority, deque[str]] = {priority: deque() for priority in Priority}
        self._leads = PriorityTurns()
        self._line = FinishingLine()
        self._has_finished_since_step = False

    def add_model(self, name: str, *, max_rows: int = 1) -> None:
        """Make room for the requests of a model, `max_rows` rows of any shape in one step."""
        self._queues[name] = ModelQueue(budget=lambda _shape: max_rows)
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
        rows = num_rows(requests)
        if len(requests) == 1 or rows <= MIN_ROWS:
            return None
        queue, shape = self._queues[requests[0].model], requests[0].demand.shape
        queue.max_row_pixels = row_pixels(shape, rows) // 2
        return queue.max_rows(shape)

    def submit(self, request: EngineRequest) -> None:
        """Put a request at the end of its queue.

        Raises:
            QueueFull: As many as may wait are waiting; says when to come again.
        """
        queue = self._queues[request.model]
        if self._num_queued(request.model, request.priority) >= self._max_queue_size:
            queue.drop_cancelled(is_between_steps=False)
        if self._num_queued(request.model, request.priority) >= self._max_queue_size:
            wait_s = self.expected_wait_s(request.model, request.priority)
            raise QueueFull(retry_after_s=min(MAX_RETRY_AFTER_S, max(1, math.ceil(wait_s))))
        queue.append(request)

    def next_finish(self) -> EngineRequest | None:
        """Choose, between two turns, the request to finish now; None when there is none or a step goes first."""
        self._line.drop_cancelled()
        if self._has_finished_since_step and self._wants_to_step():
            return None
        request = self._line.take_turn()
        self._has_finished_since_step = request is not None
        return request

    def next_batch(self) -> Batch | None:
        """Choose, between two turns, the next step's model and requests; None when nothing wants to step."""
        if not self._wants_to_step():
            return None
        self._has_finished_since_step = False
        lead = self._leads.take([p for p in Priority if any(queue.lanes[p] for queue in self._queues.values())])
        turns = self._turns[lead]
        name = next(name for name in turns if self._queues[name].lanes[lead])
        turns.remove(name)
        turns.append(name)
        requests = self._queues[name].take_requests(lead)
        admitted = [request for request in requests if request.started_at is None]
        for request in admitted:
            request.started_at = time.monotonic()
        return Batch(name, requests, admitted)

    def line_up(self, request: EngineRequest) -> None:
        """Move a request that took its last step from its lane to those that are to be finished."""
        self.retire(request)
        self._line.append(request)

    def retire(self, request: EngineRequest) -> None:
        """Take a request out of the running ones, or of those that are finished."""
        self._queues[request.model].keep(lambda other: other is not request)
        self._line.remove(request)

    def learn(self, batch: Batch, took_s: float) -> None:
        """Learn the model's speed from the seconds that a step took, > 0."""
        work = row_pixels(batch.requests[0].demand.shape, num_rows(batch.requests))
        self._queues[batch.model].steps.learn(work, took_s)

    def learn_finish(self, request: EngineRequest, took_s: float) -> None:
        """Learn from the seconds that finishing a request took, > 0."""
        self._queues[request.model].finishes.learn(finish_pixels(request), took_s)

    def expected_wait_s(self, name: str, priority: Priority = Priority.INTERACTIVE) -> float:
        """Estimate the seconds until all that goes before a new request of a model is done, >= 0.

        That is what waits, runs and is finished of this model and of this priority or a higher one; that other models
        take turns with it is left out.
        """
        priorities = [other for other in Priority if other <= priority]
        queue = self._queues[name]
        requests = [request for other in priorities for request in queue.requests(other)]
        return queue.expected_s(requests + self._line.requests(name, priorities))

    def drain(self) -> list[EngineRequest]:
        """Empty all queues and return what was in them."""
        requests = [
            request for queue in self._queues.values() for priority in Priority for request in queue.requests(priority)
        ]
        for queue in self._queues.values():
            queue.keep(lambda _request: False)
        return requests + self._line.drain()

    def take_waiting(self) -> list[EngineRequest]:
        """Let go of all that was not admitted yet, and return it."""
        waiting = [
            request
            for queue in self._queues.values()
            for priority in Priority
            for request in queue.requests(priority)
            if request.started_at is None
        ]
        for queue in self._queues.values():
            queue.keep(lambda request: request.started_at is not None)
        return waiting

    def depth(self) -> dict[str, int]:
        """Count the requests of every model that wait for their first step or to be finished."""
        return {name: sum(self._num_queued(name, priority) for priority in Priority) for name in self._queues}

    def in_flight(self) -> dict[str, int]:
        """Count the requests of every model that wait, run or are finished."""
        return {
            name: sum(len(queue.requests(priority)) for priority in Priority) + len(self._line.requests(name))
            for name, queue in self._queues.items()
        }

    def _num_queued(self, name: str, priority: Priority) -> int:
        return self._queues[name].num_waiting(priority) + len(self._line.requests(name, [priority]))

    def _wants_to_step(self) -> bool:
        """Let go, between two turns, of the cancelled requests; tell whether any others have steps to take."""
        for queue in self._queues.values():
            queue.drop_cancelled(is_between_steps=True)
        return any(lanes for queue in self._queues.values() for lanes in queue.lanes.values())
