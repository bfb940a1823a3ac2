"""Who steps next: waiting and running requests of every model.

Pure Python, knows no tensors and no threads: the engine calls it under its own lock. Each turn gives one model one
step. Interactive work goes before background work at every turn and within every batch; models that have work of
the same priority take turns, so that a short request never waits for a whole diffusion run.
"""

import math
import time
from collections import deque
from dataclasses import dataclass, field

from app.engine.request import EngineRequest, Priority
from app.errors import QueueFull

# Before a model has finished anything: about one image of the demo pack on two cores.
INITIAL_SERVICE_S = 1.0

# Weight of the newest request in the moving average of service times.
SERVICE_SMOOTHING = 0.2

MAX_RETRY_AFTER_S = 600


@dataclass(frozen=True, slots=True)
class Batch:
    """The requests of one model that take the next step together.

    Attributes:
        requests: 1 <= B <= the model's `max_batch_size`, interactive ones first.
        admitted: Those of them that run for the first time and want to be prepared.
    """

    model: str
    requests: list[EngineRequest]
    admitted: list[EngineRequest]


@dataclass(slots=True)
class _ModelQueue:
    """Waiting and running requests of one model."""

    max_batch_size: int
    waiting: dict[Priority, deque[EngineRequest]] = field(default_factory=lambda: {p: deque() for p in Priority})
    running: list[EngineRequest] = field(default_factory=list)
    service_s: float = INITIAL_SERVICE_S

    def has(self, priority: Priority) -> bool:
        """Whether a request of this priority waits or runs."""
        return bool(self.waiting[priority]) or any(request.priority == priority for request in self.running)

    def drop_cancelled(self) -> None:
        """Let the cancelled requests go."""
        for priority, waiting in self.waiting.items():
            self.waiting[priority] = deque(_without_cancelled(waiting))
        self.running = _without_cancelled(self.running)

    def take_batch(self, model: str) -> Batch:
        """Choose the requests of the next step and admit those of them that were waiting.

        What runs goes before what waits, and both after anything of a higher priority. A running background
        request that finds no room stays in `running` with its state: it is preempted until there is room again.
        """
        requests: list[EngineRequest] = []
        admitted: list[EngineRequest] = []
        for priority in Priority:
            room = self.max_batch_size - len(requests)
            requests += [request for request in self.running if request.priority == priority][:room]
            while len(requests) < self.max_batch_size and self.waiting[priority]:
                request = self.waiting[priority].popleft()
                request.started_at = time.monotonic()
                requests.append(request)
                admitted.append(request)
        self.running += admitted
        return Batch(model, requests, admitted)

    def retry_after_s(self) -> int:
        """Estimate after how many seconds a place in the queue may be free."""
        num_ahead = sum(len(waiting) for waiting in self.waiting.values()) + len(self.running)
        expected_s = num_ahead * self.service_s / self.max_batch_size
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(expected_s)))


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
        self._turns: deque[str] = deque()

    def add_model(self, name: str, *, max_batch_size: int = 1) -> None:
        """Make room for the requests of a model, `max_batch_size` of them in one step."""
        self._queues[name] = _ModelQueue(max_batch_size)
        self._turns.append(name)

    def submit(self, request: EngineRequest) -> None:
        """Put a request at the end of its queue.

        Raises:
            QueueFull: As many as may wait are waiting; says when to come again.
        """
        queue = self._queues[request.model]
        if len(queue.waiting[request.priority]) >= self._max_queue_size:
            queue.drop_cancelled()
        if len(queue.waiting[request.priority]) >= self._max_queue_size:
            raise QueueFull(retry_after_s=queue.retry_after_s())
        queue.waiting[request.priority].append(request)

    def next_batch(self) -> Batch | None:
        """Choose the next step's model and requests; None when there is nothing to do."""
        for queue in self._queues.values():
            queue.drop_cancelled()
        for priority in Priority:
            for name in self._turns:
                if self._queues[name].has(priority):
                    self._turns.remove(name)
                    self._turns.append(name)
                    return self._queues[name].take_batch(name)
        return None

    def retire(self, request: EngineRequest) -> None:
        """Take a request out of the running ones and learn from the time it took."""
        queue = self._queues[request.model]
        queue.running = [other for other in queue.running if other is not request]
        if request.started_at is not None:
            took_s = time.monotonic() - request.started_at
            queue.service_s += SERVICE_SMOOTHING * (took_s - queue.service_s)

    def drain(self) -> list[EngineRequest]:
        """Empty all queues and return what was in them."""
        requests: list[EngineRequest] = []
        for queue in self._queues.values():
            requests += queue.running
            queue.running = []
            for waiting in queue.waiting.values():
                requests += waiting
                waiting.clear()
        return requests

    def depth(self) -> dict[str, int]:
        """Count the waiting requests of every model."""
        return {name: sum(len(waiting) for waiting in queue.waiting.values()) for name, queue in self._queues.items()}


def _without_cancelled(requests: "deque[EngineRequest] | list[EngineRequest]") -> list[EngineRequest]:
    kept = []
    for request in requests:
        if request.is_cancelled:
            request.abandon()
        else:
            kept.append(request)
    return kept
