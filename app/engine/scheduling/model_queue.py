"""The requests of one model: lanes by priority, caller and kind, and the measured speed of their steps.

Pure Python, imports no torch. The batcher calls it, under the engine's lock.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from app.engine.request import MIN_ROWS, EngineRequest, Kind, Priority, Shape
from app.engine.scheduling.device_time import DeviceTime, Work
from app.engine.scheduling.fair_queuing import Lanes, Step, StepCosts, filled_rows, num_rows, pay, shared_rows

RowsOfShape = Callable[[Shape], int]
CostOfRows = Callable[[Shape, int], float]
FirstUse = Callable[[Shape], float]

# Assumed seconds of a request before its model has stepped at all: about one image of the demo pack on two cores.
INITIAL_SERVICE_S = 1.0


def no_first_use(_shape: Shape) -> float:
    """Return no time: a model that needs no preparation for a shape."""
    return 0.0


def row_pixels(shape: Shape, rows: int) -> int:
    """Return the work in `rows` rows of a shape: the cost of a step until it is measured."""
    return rows * math.prod(shape)


@dataclass(slots=True)
class NetworkCosts:
    """What the steps of one network of a model cost.

    Attributes:
        budget: Rows of one step, by shape.
        step_cost: Expected cost of a step, > 0, by shape and rows.
        max_row_pixels: Largest step that fits into memory; lowered after a step that did not fit.
        device_time: What its turns have cost.
        first_use: Seconds that the first step at a shape takes in addition, >= 0; 0 once it is taken.
    """

    budget: RowsOfShape
    step_cost: CostOfRows = row_pixels
    max_row_pixels: int = sys.maxsize
    device_time: DeviceTime = field(default_factory=DeviceTime)
    first_use: FirstUse = no_first_use

    def max_rows(self, shape: Shape) -> int:
        """Return the rows of a step: the budget, or fewer where memory is the limit."""
        return min(self.budget(shape), max(MIN_ROWS, self.max_row_pixels // math.prod(shape)))


@dataclass(slots=True)
class ModelQueue:
    """Waiting and running requests of one model.

    Attributes:
        own: What its steps cost.
        networks: The same of its further networks, by name, see `RequestCost.network`.
        lanes: Waiting and running requests by priority.
    """

    own: NetworkCosts
    networks: dict[str, NetworkCosts] = field(default_factory=dict)
    lanes: dict[Priority, Lanes] = field(default_factory=lambda: {p: Lanes() for p in Priority})

    def costs(self, network: str) -> NetworkCosts:
        """Return what steps of a network cost; of one that is not known, what the model's own do."""
        return self.networks.get(network, self.own)

    @property
    def has_requests(self) -> bool:
        """Whether any request waits or runs."""
        return any(bool(lanes) for lanes in self.lanes.values())

    def requests(self, priority: Priority) -> list[EngineRequest]:
        """List the requests that wait or run."""
        return list(self.lanes[priority].requests())

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
        Lanes of the other priority pay for what they add: else they would have their turns besides. Background ones
        make an interactive step little longer, see `filled_rows`.
        """
        costs, step = StepCosts(self._max_rows, self._step_cost), Step()
        turn = self.lanes[lead].take_turn(costs)
        kind = turn[0].kind
        max_rows = costs.max_rows(kind)
        company = step.deal_once(turn, max_rows)
        shared = shared_rows(company, costs)
        step.deal_extra(company, shared)
        lanes = self.lanes[lead].of_kind(kind)
        step.deal_extra([lane for lane in lanes if not lane.can_pay], shared)
        paid = step.rows.copy()
        lead_cost = pay(paid, costs)
        if len(lanes) == 1 or len(step.requests) == sum(len(lane.requests) for lane in lanes):
            shared = max_rows  # no caller was left out for the sake of another
        if lead is Priority.INTERACTIVE:
            shared = filled_rows(kind, step.num_rows, shared, costs)
        for priority in Priority:
            if priority != lead:
                step.deal_extra(self.lanes[priority].of_kind(kind), shared)
        if riders := step.rows - paid:
            pay(riders, costs, costs.of_rows(kind, step.num_rows) - lead_cost)
        return step.requests

    def _max_rows(self, kind: Kind) -> int:
        return self.costs(kind.network).max_rows(kind.shape)

    def _step_cost(self, kind: Kind, rows: int) -> float:
        return self.costs(kind.network).step_cost(kind.shape, rows)

    def record_step(self, kind: Kind, rows: int, took_s: float) -> None:
        """Add a step that took `took_s` seconds, > 0, to the measured speed."""
        costs = self.costs(kind.network)
        costs.device_time.steps.record(kind.shape, costs.step_cost(kind.shape, rows), took_s)

    def record_finish(self, kind: Kind, took_s: float) -> None:
        """Add a finish that took `took_s` seconds, > 0, to the measured speed."""
        self.costs(kind.network).device_time.finishes.record(kind.shape, row_pixels(kind.shape, 1), took_s)

    def seconds(self, work: Work) -> float | None:
        """Estimate the device's seconds for work, see `DeviceTime.seconds`; None for a network that is not known."""
        if work.network and work.network not in self.networks:
            return None
        costs = self.costs(work.network)
        seconds = costs.device_time.seconds(work, costs.max_rows, costs.step_cost)
        return None if seconds is None else seconds + costs.first_use(work.shape)

    def expected_s(self, requests: Sequence[EngineRequest]) -> float:
        """Estimate the remaining device time of these requests of this model, in seconds."""
        by_kind: dict[Kind, list[EngineRequest]] = defaultdict(list)
        for request in requests:
            by_kind[request.cost.kind].append(request)
        return sum(self._expected_s(kind, alike) for kind, alike in by_kind.items())

    def _expected_s(self, kind: Kind, requests: Sequence[EngineRequest]) -> float:
        stepping = [request for request in requests if request.stepped_at is None]
        work = Work(
            kind.shape,
            row_steps=sum(map(_row_steps_left, stepping)),
            together=num_rows(stepping) or 1,
            finishes=sum(request.cost.finishes_separately for request in requests),
            network=kind.network,
        )
        seconds = self.seconds(work)
        return len(requests) * INITIAL_SERVICE_S if seconds is None else seconds

    def expected_wait_s(self, ahead: Sequence[EngineRequest], caller: str) -> float:
        """Estimate the seconds that these requests of one priority take the device before a new one of a caller begins.

        While the caller's own requests are served, every other caller gets as much of the device as they need.
        """
        by_caller: dict[str, list[EngineRequest]] = defaultdict(list)
        for request in ahead:
            by_caller[request.caller].append(request)
        own_s = self.expected_s(by_caller[caller])
        return sum(min(own_s, self.expected_s(requests)) for requests in by_caller.values())


def _row_steps_left(request: EngineRequest) -> int:
    return max(request.rows, request.cost.rows_left(request.steps_done))
