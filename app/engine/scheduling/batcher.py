"""Chooses the device's next turn among the waiting, running and finishing requests of every model.

Pure Python, imports no torch and starts no threads: the engine calls it under its own lock. A step advances requests
of one model and one kind by one step, up to the model's row budget. Five rules choose them:

1. Interactive work leads every step, except one in `BACKGROUND_EVERY` while both priorities have work.
2. Models that have work of the leading priority take turns.
3. Callers of one model and priority share the device's time evenly, and so do the kinds of one caller, by deficit
   round robin over lanes of one caller and kind: a shape, and the weights that the model has for it.
4. Requests of one lane step in the order of submission.
5. A step has requests of several callers, as far as that makes none of them slower. Each pays for its part. Rows that
   the leading priority leaves free are filled with requests of the same kind and the other priority, which pay for
   what they add; background requests make an interactive step at most a quarter longer.

A request with `RequestCost.finishes_separately` leaves its lane after the last step and is finished in a turn of its
own: at most one such turn between two steps, without pause while nothing waits to step; by rule 1, then the callers in
turn, then in the order in which the requests took their last steps.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from app.engine.observer import Waiting
from app.engine.request import MIN_ROWS, EngineRequest, Priority
from app.engine.scheduling.device_time import DeviceEstimate, DeviceTime, Load, Work
from app.engine.scheduling.fair_queuing import num_rows
from app.engine.scheduling.model_queue import (
    CostOfRows,
    FirstUse,
    ModelQueue,
    NetworkCosts,
    RowsOfShape,
    no_first_use,
    row_pixels,
)
from app.engine.scheduling.turns import DecodeQueue, PriorityTurns, has_place
from app.errors import QueueFull

MAX_RETRY_AFTER_S = 600


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests of one model that take the next step together.

    Attributes:
        requests: >= 1, all of one kind, those of the leading priority first. Together they need no more rows than
            the model's budget, unless there is only one.
        admitted: Those of them that run for the first time and have to be prepared.
        row_counts: Rows of each request in this step.
        is_first_use: Whether the step takes longer because it is the first of its shape.
    """

    model: str
    requests: list[EngineRequest]
    admitted: list[EngineRequest]
    row_counts: tuple[int, ...]
    is_first_use: bool = False

    @property
    def rows(self) -> int:
        """Rows of the step."""
        return sum(self.row_counts)


class Batcher:
    """Decides at each turn which model steps, and which of its requests."""

    def __init__(self, *, max_queue_size: int, load: Load | None = None) -> None:
        """Start empty.

        Args:
            max_queue_size: Requests per model and priority that wait for their first step or to be finished; >= 1.
                Of each priority, so that background work cannot fill the queue for interactive requests. When so many
                wait, callers with less than their even share get as many places again, see `has_place`.
            load: Measures the share of each priority; default: by the machine's clock.
        """
        self._max_queue_size = max_queue_size
        self._queues: dict[str, ModelQueue] = {}
        self._turns: dict[Priority, deque[str]] = {priority: deque() for priority in Priority}
        self._leads = PriorityTurns()
        self._finishing = DecodeQueue()
        self._has_finished_since_step = False
        self._load = load or Load()

    def add_model(self, name: str, *, max_rows: int = 1) -> None:
        """Add an empty queue for a model, with `max_rows` rows of any shape in one step."""
        self._queues[name] = ModelQueue(NetworkCosts(budget=lambda _shape: max_rows))
        for turns in self._turns.values():
            turns.append(name)

    def remove_model(self, name: str) -> None:
        """Remove a model without requests, if it is here."""
        if self._queues.pop(name, None) is not None:
            for turns in self._turns.values():
                turns.remove(name)

    def rows_per_s(self, name: str) -> float | None:
        """Return the measured speed of a model whose requests have no shape; None before its first step."""
        queue = self._queues.get(name)
        row_s = None if queue is None else queue.own.device_time.steps.scale(())
        return 1 / row_s if row_s else None

    def set_row_budget(
        self,
        name: str,
        budget: RowsOfShape,
        step_cost: CostOfRows = row_pixels,
        *,
        network: str = "",
        first_use: FirstUse = no_first_use,
    ) -> None:
        """Change the rows and the cost of a step, from the next step on; see `Engine.set_row_budget`."""
        queue = self._queues[name]
        device_time = DeviceTime(in_seconds=step_cost is not row_pixels)
        costs = NetworkCosts(budget, step_cost, device_time=device_time, first_use=first_use)
        if network:
            queue.networks[network] = costs
        else:
            costs.max_row_pixels = queue.own.max_row_pixels
            costs.device_time.finishes = queue.own.device_time.finishes
            queue.own = costs

    def reduce_rows(self, requests: Sequence[EngineRequest]) -> int | None:
        """Halve the steps of a model after a step over these requests ran out of memory.

        Returns:
            The rows that a step of their shape may have from now on, at most half of theirs and >= `MIN_ROWS`; None
            if no smaller step is possible.
        """
        rows = num_rows(requests)
        if len(requests) == 1 or rows <= MIN_ROWS:
            return None
        kind = requests[0].cost.kind
        costs = self._queues[requests[0].model].costs(kind.network)
        costs.max_row_pixels = row_pixels(kind.shape, rows) // 2
        return costs.max_rows(kind.shape)

    def submit(self, request: EngineRequest) -> None:
        """Put a request at the end of its lane.

        Raises:
            QueueFull: `max_queue_size` requests wait, and its caller has its share of them; carries the seconds after
                which this caller should retry.
        """
        queue = self._queues[request.model]
        if not self._has_place(request):
            queue.drop_cancelled(is_between_steps=False)
        if not self._has_place(request):
            wait_s = self.expected_wait_s(request.model, request.priority, request.caller)
            raise QueueFull(retry_after_s=min(MAX_RETRY_AFTER_S, max(1, math.ceil(wait_s))))
        queue.append(request)

    def has_work(self) -> bool:
        """Return whether any request waits, runs or is finished; cancelled ones count until their turn."""
        return bool(self._finishing) or any(queue.has_requests for queue in self._queues.values())

    def next_finish(self) -> EngineRequest | None:
        """Choose, between two turns, the request to finish now; None when there is none or a step goes first."""
        self._finishing.drop_cancelled()
        if self._has_finished_since_step and self._has_work_to_step():
            return None
        request = self._finishing.take_turn()
        self._has_finished_since_step = request is not None
        return request

    def next_batch(self) -> Batch | None:
        """Choose, between two turns, the next step's model and requests; None when no request has steps to take."""
        if not self._has_work_to_step():
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
        kind = requests[0].cost.kind
        is_first_use = self._queues[name].costs(kind.network).first_use(kind.shape) > 0
        return Batch(name, requests, admitted, tuple(request.rows for request in requests), is_first_use)

    def move_to_finishing(self, request: EngineRequest) -> None:
        """Move a request that took its last step from its lane to the queue of those to finish."""
        self.retire(request)
        self._finishing.append(request)

    def retire(self, request: EngineRequest) -> None:
        """Remove a request that runs or is being finished."""
        self._queues[request.model].remove(request)
        self._finishing.remove(request)

    def record_step(self, batch: Batch, took_s: float) -> None:
        """Update the model's speed and the load with the seconds that a step took, > 0."""
        if not batch.is_first_use:
            self._queues[batch.model].record_step(batch.requests[0].cost.kind, batch.rows, took_s)
        for request, rows in zip(batch.requests, batch.row_counts, strict=True):
            self._load.record(request.priority, took_s * rows / batch.rows)

    def record_finish(self, request: EngineRequest, took_s: float) -> None:
        """Update the model's speed and the load with the seconds that finishing a request took, > 0."""
        self._queues[request.model].record_finish(request.cost.kind, took_s)
        self._load.record(request.priority, took_s)

    def estimate(self, name: str, work: Sequence[Work]) -> DeviceEstimate:
        """Estimate the device's time for background work of a model that is not submitted yet; one or more shapes."""
        queue = self._queues[name]
        seconds = [queue.seconds(part) for part in work]
        interactive = [
            (other, other.requests(Priority.INTERACTIVE) + self._finishing.requests(model, [Priority.INTERACTIVE]))
            for model, other in self._queues.items()
        ]
        known = [taken for taken in seconds if taken is not None]
        return DeviceEstimate(
            seconds=sum(known) if len(known) == len(seconds) else None,
            basis=queue.costs(work[0].network).device_time.basis(work[0].shape) if work else None,
            interactive_s=sum(other.expected_s(requests) for other, requests in interactive),
            interactive_share=self._load.share(Priority.INTERACTIVE),
            first_use_s=sum(queue.costs(part.network).first_use(part.shape) for part in work),
        )

    def expected_wait_s(self, name: str, priority: Priority = Priority.INTERACTIVE, caller: str | None = None) -> float:
        """Estimate the seconds until the work ahead of a new request of a model is done, >= 0.

        Counts what waits, runs and is finished of this model and of this priority or a higher one; ignores that other
        models take turns with it.

        Args:
            name: The model.
            priority: That of the new request.
            caller: Whose request it is; None: all work counts, as for a request that goes last.
        """
        queue = self._queues[name]
        ahead = {
            other: queue.requests(other) + self._finishing.requests(name, [other])
            for other in Priority
            if other <= priority
        }
        if caller is None:
            return queue.expected_s([request for requests in ahead.values() for request in requests])
        equals = ahead.pop(priority)
        return sum(map(queue.expected_s, ahead.values())) + queue.expected_wait_s(equals, caller)

    def drain(self) -> list[EngineRequest]:
        """Remove all requests and return them."""
        requests = [
            request for queue in self._queues.values() for priority in Priority for request in queue.requests(priority)
        ]
        for queue in self._queues.values():
            queue.keep(lambda _request: False)
        return requests + self._finishing.drain()

    def take_waiting(self) -> list[EngineRequest]:
        """Remove all requests that are not admitted yet and return them."""
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

    def in_flight(self) -> dict[str, int]:
        """Count the requests of every model that wait, run or are finished."""
        return {
            name: sum(len(queue.requests(priority)) for priority in Priority) + len(self._finishing.requests(name))
            for name, queue in self._queues.items()
        }

    def waiting(self) -> list[Waiting]:
        """Return the requests that are not admitted yet, by model and priority."""
        now, found = time.monotonic(), []
        for name, queue in self._queues.items():
            for priority in Priority:
                since = [request.submitted_at for request in queue.requests(priority) if request.started_at is None]
                if since:
                    found.append(Waiting(name, priority, len(since), now - min(since)))
        return found

    def _has_place(self, request: EngineRequest) -> bool:
        """Return whether a request may wait."""
        queued = self._finishing.requests(request.model, [request.priority]) + [
            other for other in self._queues[request.model].requests(request.priority) if other.started_at is None
        ]
        return has_place(Counter(other.caller for other in queued), request.caller, self._max_queue_size)

    def _has_work_to_step(self) -> bool:
        """Remove, between two turns, the cancelled requests; return whether any others have steps to take."""
        for queue in self._queues.values():
            queue.drop_cancelled(is_between_steps=True)
        return any(queue.has_requests for queue in self._queues.values())
