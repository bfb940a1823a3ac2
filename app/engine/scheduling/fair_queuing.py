"""Lanes of requests: the requests of one caller and kind, and how lanes share steps and pay for them.

A kind is a shape, and the weights and network that the model has for it. Lanes take turns by deficit round robin. A
step has requests of all lanes of one kind that can pay for it, and each pays for its part. Pure Python, imports no
torch. The model's queue calls it, under the engine's lock.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.engine.request import EngineRequest, Kind, Shape

# Quanta that a lane may have had before its turn. More would keep it waiting for long once others are there; fewer
# would give away rows that should be paid for.
MAX_DEBT = 4

# How much longer background requests that fill the rows of an interactive step may make it.
MAX_FILL_DELAY = 0.25

# Shape and network: what the cost of a step depends on besides its rows.
_Size = tuple[Shape, str]


@dataclass(slots=True, eq=False)
class Lane:
    """The requests of one model, priority, caller and kind, in the order of submission.

    They are admitted in that order, so that the running ones are always the first.

    Attributes:
        credit: Cost of steps that it may still have in this round of the deficit round robin. Below zero, it has had
            part of its next turns already.
        quantum: What it gets in a round.
        is_served: Whether it has the round's turn and got its quantum.
        extra_rows: Rows that it had of those that `Step.deal_extra` divides, >= 0, relative to the lane with the
            fewest.
    """

    caller: str
    kind: Kind
    requests: list[EngineRequest] = field(default_factory=list)
    credit: float = 0.0
    quantum: float = 0.0
    is_served: bool = False
    extra_rows: int = 0

    @property
    def can_pay(self) -> bool:
        """Whether it may take part in a step of its kind: until it has had a quantum before its turn."""
        return self.credit > -self.quantum

    def rows_alone(self, max_rows: int) -> int:
        """Return the rows of the step that it would take alone, >= 1; more than `max_rows` only for one request."""
        rows = self.requests[0].rows
        for request in self.requests[1:]:
            if rows + request.rows > max_rows:
                break
            rows += request.rows
        return rows


class StepCosts:
    """The rows and costs of a model's steps, each looked up once during a turn."""

    def __init__(self, max_rows: Callable[[Kind], int], step_cost: Callable[[Kind, int], float]) -> None:
        """Take the model's functions: rows of a step by kind, and its cost by kind and rows; weights do not matter."""
        self._max_rows_of, self._step_cost = max_rows, step_cost
        self._max_rows: dict[_Size, int] = {}
        self._costs: dict[tuple[_Size, int], float] = {}

    def max_rows(self, kind: Kind) -> int:
        """Return the most rows of a step."""
        size = kind.shape, kind.network
        if size not in self._max_rows:
            self._max_rows[size] = self._max_rows_of(kind)
        return self._max_rows[size]

    def of_rows(self, kind: Kind, rows: int) -> float:
        """Return the cost of a step, > 0."""
        key = (kind.shape, kind.network), rows
        if key not in self._costs:
            self._costs[key] = self._step_cost(kind, rows)
        return self._costs[key]

    def alone(self, lane: Lane) -> float:
        """Return the cost of the step that a lane would take alone."""
        return self.of_rows(lane.kind, lane.rows_alone(self.max_rows(lane.kind)))


class Lanes:
    """The non-empty lanes of one model and priority, in the order of their turns."""

    def __init__(self) -> None:
        """Start empty."""
        self._lanes: deque[Lane] = deque()
        self._by_key: dict[tuple[str, Kind], Lane] = {}

    def __bool__(self) -> bool:
        """Return whether there are requests."""
        return bool(self._lanes)

    def requests(self) -> Iterator[EngineRequest]:
        """Iterate over all requests, those of a lane in the order of submission."""
        return (request for lane in self._lanes for request in lane.requests)

    def of_kind(self, kind: Kind) -> list[Lane]:
        """List the lanes of a kind in the order of their turns."""
        return [lane for lane in self._lanes if lane.kind == kind]

    def append(self, request: EngineRequest) -> None:
        """Put a request at the end of its lane; a new lane goes to the end of the round."""
        key = (request.caller, request.cost.kind)
        if key not in self._by_key:
            self._by_key[key] = Lane(*key)
            self._lanes.append(self._by_key[key])
        self._by_key[key].requests.append(request)

    def remove(self, request: EngineRequest) -> None:
        """Remove a request, if it is here, and its lane with its credit if that becomes empty."""
        key = (request.caller, request.cost.kind)
        lane = self._by_key.get(key)
        if lane is None or request not in lane.requests:
            return
        lane.requests.remove(request)
        if not lane.requests:
            self._lanes.remove(lane)
            del self._by_key[key]

    def keep(self, is_kept: Callable[[EngineRequest], bool]) -> None:
        """Remove all other requests."""
        for request in [request for request in self.requests() if not is_kept(request)]:
            self.remove(request)

    def take_turn(self, costs: StepCosts) -> list[Lane]:
        """Choose the lane that leads the next step, and those of its kind that can pay for their part of it.

        Returns:
            The leading lane, then the others in the order of their turns.

        Source:
            Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round-Robin", 1996.
        """
        self._set_quanta(costs)
        while True:
            leader = self._lanes[0]
            if not leader.is_served:
                leader.is_served = True
                leader.credit += leader.quantum
            if leader.credit >= costs.alone(leader):
                break
            leader.is_served = False
            self._lanes.rotate(-1)
        return [lane for lane in self.of_kind(leader.kind) if lane.can_pay]

    def _set_quanta(self, costs: StepCosts) -> None:
        """Set what each lane gets in a round: the same for each caller, divided evenly among the caller's lanes.

        A caller with the fewest lanes gets for each the cost of the most expensive step at hand, so that it leads a
        step in every round, and no turn lasts longer than such a step.
        """
        quantum = max(map(costs.alone, self._lanes))
        num_lanes = Counter(lane.caller for lane in self._lanes)
        fewest = min(num_lanes.values())
        for lane in self._lanes:
            lane.quantum = quantum * fewest / num_lanes[lane.caller]


def shared_rows(company: Sequence[Lane], costs: StepCosts) -> int:
    """Return the rows of a step of several lanes of one kind, so that sharing it makes none of them slower.

    A step of n lanes lasts at most n times as long as the shortest step that one of them would take alone: with an
    n-th of the device's time that lane would not be faster. Requests of one step end with it, so they have no limit.
    """
    kind = company[0].kind
    rows = costs.max_rows(kind)
    if all(lane.requests[0].cost.steps == 1 for lane in company):
        return rows
    longest = len(company) * min(map(costs.alone, company))
    while rows > 1 and costs.of_rows(kind, rows) > longest:
        rows -= 1
    return rows


def filled_rows(kind: Kind, rows: int, max_rows: int, costs: StepCosts) -> int:
    """Return the rows that an interactive step of `rows` rows may have when background requests fill it, >= `rows`."""
    longest = (1 + MAX_FILL_DELAY) * costs.of_rows(kind, rows)
    return next((more for more in range(max_rows, rows, -1) if costs.of_rows(kind, more) <= longest), rows)


class Step:
    """The requests of a step while it is put together; they have one kind.

    Attributes:
        requests: In the order in which they were added.
        rows: The rows of each lane.
        num_rows: Of all lanes together.
    """

    def __init__(self) -> None:
        """Start without requests."""
        self.requests: list[EngineRequest] = []
        self.rows: Counter[Lane] = Counter()
        self.num_rows = 0
        self._num_dealt: Counter[Lane] = Counter()

    def deal_once(self, lanes: Sequence[Lane], max_rows: int) -> list[Lane]:
        """Add the next request of each lane that fits into so many rows, and return those lanes.

        A step without requests always takes the first.
        """
        return [lane for lane in lanes if self._add_next(lane, max_rows)]

    def deal_extra(self, lanes: Sequence[Lane], max_rows: int) -> None:
        """Add requests in turn, one of each lane at a time, each lane up to its first one that does not fit.

        The lanes that had the fewest such rows until now go first, so that none always gets the last rows.
        """
        lanes = sorted((lane for lane in lanes if self._has_more(lane)), key=lambda lane: lane.extra_rows)
        before, dealing = self.rows.copy(), lanes
        while dealing:
            dealing = self.deal_once(dealing, max_rows)
        for lane in lanes:
            lane.extra_rows += self.rows[lane] - before[lane]
        fewest = min((lane.extra_rows for lane in lanes), default=0)
        for lane in lanes:
            lane.extra_rows -= fewest

    def _has_more(self, lane: Lane) -> bool:
        return self._num_dealt[lane] < len(lane.requests)

    def _add_next(self, lane: Lane, max_rows: int) -> bool:
        if not self._has_more(lane):
            return False
        request = lane.requests[self._num_dealt[lane]]
        if self.requests and self.num_rows + request.rows > max_rows:
            return False
        self.requests.append(request)
        self.num_rows += request.rows
        self.rows[lane] += request.rows
        self._num_dealt[lane] += 1
        return True


def pay(rows: Mapping[Lane, int], costs: StepCosts, cost: float | None = None) -> float:
    """Divide a cost evenly among the lanes with rows in a step, none paying more than for its rows alone.

    Args:
        rows: Of each lane, one or more.
        costs: Of the model.
        cost: What is divided, >= 0; None: the cost of a step of these rows.

    Returns:
        The cost.
    """
    kind = next(iter(rows)).kind
    paying = sorted(((costs.of_rows(kind, own), lane) for lane, own in rows.items()), key=lambda entry: entry[0])
    left = cost = costs.of_rows(kind, sum(rows.values())) if cost is None else cost
    for position, (most, lane) in enumerate(paying):
        share = min(most, left / (len(paying) - position))
        lane.credit = max(lane.credit - share, -MAX_DEBT * lane.quantum)
        left -= share
    return cost


def num_rows(requests: Iterable[EngineRequest]) -> int:
    """Count the rows of the next step of these requests."""
    return sum(request.rows for request in requests)
