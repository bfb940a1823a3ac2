"""Callers share a model's steps evenly, counted in steps; no threads and no models here.

The device time of a step is divided among its requests by rows. The default cost of a step is its rows times pixels.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.engine.request import EngineRequest, Priority, RequestCost, Shape
from app.engine.scheduling.batcher import Batch, Batcher
from app.engine.scheduling.model_queue import row_pixels
from app.engine.scheduling.turns import BACKGROUND_EVERY
from app.errors import QueueFull

GUIDED, UNGUIDED = 2, 1  # rows
SMALL, LARGE, TALL = (4, 4), (8, 8), (8, 4)
ENDLESS = 10**6  # steps
MODEL = "diffusion"

StepCost = Callable[[Shape, int], float]


def make_batcher(max_rows: int, *, max_queue_size: int = 10_000, step_cost: StepCost = row_pixels) -> Batcher:
    batcher = Batcher(max_queue_size=max_queue_size)
    batcher.add_model(MODEL)
    batcher.set_row_budget(MODEL, lambda _shape: max_rows, step_cost)
    return batcher


def submit(
    batcher: Batcher,
    caller: str,
    num: int = 1,
    priority: Priority = Priority.INTERACTIVE,
    *,
    shape: Shape = (),
    rows: int = GUIDED,
    steps: int = ENDLESS,
    finishes_separately: bool = False,
) -> list[EngineRequest]:
    cost = RequestCost(shape, rows, steps, finishes_separately)
    requests = [EngineRequest(MODEL, None, priority, cost, caller=caller) for _ in range(num)]
    for request in requests:
        batcher.submit(request)
    return requests


def step(batcher: Batcher) -> Batch:
    """Take a step, and retire the requests that took their last one."""
    batch = batcher.next_batch()
    assert batch is not None
    for request in batch.requests:
        request.steps_done += 1
        if request.steps_done == request.cost.steps:
            request.resolve(None)
            batcher.retire(request)
    return batch


def rows_of(batch: Batch) -> int:
    return sum(request.cost.rows for request in batch.requests)


def shares(batches: Iterable[Batch], step_cost: StepCost = row_pixels) -> dict[str, float]:
    """Return the part of the device's time that each caller had."""
    spent: Counter[str] = Counter()
    for batch in batches:
        cost = step_cost(batch.requests[0].cost.shape, rows_of(batch))
        for request in batch.requests:
            spent[request.caller] += cost * request.cost.rows / rows_of(batch)  # type: ignore[assignment]
    return {caller: part / sum(spent.values()) for caller, part in spent.items()}


def steps_with(caller: str, batches: Sequence[Batch]) -> int:
    return sum(any(request.caller == caller for request in batch.requests) for batch in batches)


# Even shares.


@pytest.mark.parametrize("max_rows", [GUIDED, 4, 7, 8, 16])
def test_one_and_twenty_waiting_requests_share_the_time_evenly(max_rows: int) -> None:
    batcher = make_batcher(max_rows)
    submit(batcher, "many", 20)
    submit(batcher, "one")

    assert shares(step(batcher) for _ in range(500)) == pytest.approx({"many": 0.5, "one": 0.5}, rel=0.02)


@pytest.mark.parametrize("max_rows", [GUIDED, 8])
def test_a_caller_that_sends_the_next_request_after_the_last_gets_half(max_rows: int) -> None:
    batcher = make_batcher(max_rows)
    submit(batcher, "many", 20)
    batches = []
    for _ in range(40):
        [request] = submit(batcher, "one", steps=20)
        while not request.resolved:
            batches.append(step(batcher))

    assert shares(batches)["one"] == pytest.approx(0.5, rel=0.1)


def test_the_last_of_few_requests_is_done_when_many_others_have_had_as_many_steps() -> None:
    batcher = make_batcher(8)
    submit(batcher, "many", 20, steps=20)
    [one] = submit(batcher, "one", steps=20)
    batches = list(iter(lambda: None if one.resolved else step(batcher), None))

    assert sum(rows_of(batch) for batch in batches) == pytest.approx(2 * 20 * GUIDED, rel=0.1)


def test_who_fills_the_steps_of_the_other_priority_leaves_its_turns_to_others() -> None:
    def cost(shape: Shape, rows: int) -> float:
        return math.prod(shape) * (100 + rows)  # rows cost so little that background requests fill interactive steps

    batcher = make_batcher(16, step_cost=cost)
    submit(batcher, "leader", shape=SMALL)
    submit(batcher, "rider", 8, Priority.BACKGROUND, shape=SMALL)
    submit(batcher, "other", 4, Priority.BACKGROUND, shape=LARGE)
    batches = [step(batcher) for _ in range(40 * BACKGROUND_EVERY)]

    own_turns = [batch for batch in batches if batch.requests[0].priority is Priority.BACKGROUND]
    assert steps_with("rider", batches) > 0.8 * len(batches)
    assert shares(own_turns, cost)["other"] > 0.6


def test_requests_with_other_numbers_of_rows_share_the_time_and_not_the_steps() -> None:
    batcher = make_batcher(8)
    submit(batcher, "guided", 20, rows=GUIDED)
    submit(batcher, "unguided", rows=UNGUIDED)

    assert shares(step(batcher) for _ in range(500)) == pytest.approx({"guided": 0.5, "unguided": 0.5}, rel=0.02)


def test_callers_of_different_shapes_share_the_time_evenly() -> None:
    batcher = make_batcher(8)
    for caller, shape, num in (("small", SMALL, 20), ("large", LARGE, 1), ("tall", TALL, 5)):
        submit(batcher, caller, num, shape=shape)

    even = dict.fromkeys(("small", "large", "tall"), 1 / 3)
    assert shares(step(batcher) for _ in range(900)) == pytest.approx(even, rel=0.02)


def test_a_caller_of_many_shapes_gets_no_more_than_one_of_a_single_shape() -> None:
    batcher = make_batcher(8)
    for shape in (SMALL, LARGE, TALL):
        submit(batcher, "many", 4, shape=shape)
    submit(batcher, "one", shape=SMALL)
    batches = [step(batcher) for _ in range(900)]

    assert shares(batches) == pytest.approx({"many": 0.5, "one": 0.5}, rel=0.02)
    by_shape: Counter[Shape] = Counter()
    for batch in batches:
        for request in batch.requests:
            if request.caller == "many":
                by_shape[request.cost.shape] += row_pixels(request.cost.shape, request.cost.rows)
    pixels = list(by_shape.values())
    assert pixels == pytest.approx([sum(pixels) / 3] * 3, rel=0.05), "its shapes share its part as they share the whole"


# Packing.


def test_a_lone_caller_has_everything() -> None:
    batcher = make_batcher(8)
    [left] = submit(batcher, "left")
    submit(batcher, "lone", 20)
    for _ in range(50):
        step(batcher)
    left.future.cancel()

    batches = [step(batcher) for _ in range(20)]
    assert [(len(batch.requests), steps_with("lone", [batch])) for batch in batches] == [(4, 1)] * 20


def test_rows_of_several_callers_are_packed_in_one_step() -> None:
    batcher = make_batcher(8)
    for caller in "abcd":
        submit(batcher, caller, 3)

    for _ in range(10):
        assert sorted(request.caller for request in step(batcher).requests) == list("abcd")


def test_the_rows_of_a_step_are_divided_evenly() -> None:
    batcher = make_batcher(16)
    submit(batcher, "a", 20)
    submit(batcher, "b", 20)

    for _ in range(10):
        assert Counter(request.caller for request in step(batcher).requests) == {"a": 4, "b": 4}


def test_free_rows_are_filled_where_they_cost_no_time() -> None:
    batcher = make_batcher(8, step_cost=lambda _shape, _rows: 1.0)
    submit(batcher, "many", 20)
    submit(batcher, "one")

    for _ in range(50):
        assert Counter(request.caller for request in step(batcher).requests) == {"many": 3, "one": 1}


def test_callers_that_share_a_step_share_its_cost() -> None:
    batcher = make_batcher(8, step_cost=lambda _shape, _rows: 1.0)
    for caller, shape in (("a", SMALL), ("b", SMALL), ("c", LARGE)):
        submit(batcher, caller, 20, shape=shape)

    shapes = Counter(step(batcher).requests[0].cost.shape for _ in range(300))
    assert shapes == pytest.approx({SMALL: 200, LARGE: 100}, abs=2)


@pytest.mark.parametrize("fixed", [0.0, 0.5, 1.0, 4.0, 32.0])
@pytest.mark.parametrize("max_rows", [8, 32])
def test_no_caller_is_slower_than_with_its_part_of_the_device_alone(fixed: float, max_rows: int) -> None:
    def step_cost(_shape: Shape, rows: int) -> float:
        return fixed + rows

    numbers = {"many": 20, "few": 3, "one": 1}
    batcher = make_batcher(max_rows, step_cost=step_cost)
    for caller, num in numbers.items():
        submit(batcher, caller, num)
    batches = [step(batcher) for _ in range(600)]

    spent = sum(step_cost((), rows_of(batch)) for batch in batches)
    for caller, num in numbers.items():
        rows = min(max_rows, num * GUIDED)
        alone = rows / step_cost((), rows)
        had = sum(request.cost.rows for batch in batches for request in batch.requests if request.caller == caller)
        # Rows come in twos, so a step may be shorter by one request than sharing allows.
        assert had / spent >= 0.85 * alone / len(numbers), caller


def test_requests_of_one_step_are_packed_without_a_limit() -> None:
    batcher = make_batcher(16)
    submit(batcher, "many", 30, rows=1, steps=1)
    submit(batcher, "one", rows=1, steps=1)

    batch = step(batcher)
    assert Counter(request.caller for request in batch.requests) == {"many": 15, "one": 1}


# Delay and order.


@pytest.mark.parametrize("max_rows", [GUIDED, 8])
@pytest.mark.parametrize("shape", [SMALL, LARGE])
def test_a_caller_over_its_share_delays_another_by_one_step(max_rows: int, shape: Shape) -> None:
    batcher = make_batcher(max_rows)
    submit(batcher, "many", 20, shape=LARGE)
    for num_before in range(20):
        [newcomer] = submit(batcher, f"newcomer {num_before}", shape=shape, steps=1)
        for _ in range(2):
            if not newcomer.resolved:
                step(batcher)
        assert newcomer.resolved, "in the next step, or in the one after it"


def test_more_callers_than_rows_take_turns() -> None:
    batcher = make_batcher(4)
    callers = [f"caller {index}" for index in range(9)]
    for caller in callers:
        submit(batcher, caller, 2)
    batches = [step(batcher) for _ in range(900)]

    assert all(rows_of(batch) == 4 for batch in batches)
    assert {caller: steps_with(caller, batches) for caller in callers} == pytest.approx(
        dict.fromkeys(callers, 200), abs=4
    )


def test_a_caller_that_was_idle_gets_no_more_than_its_share_afterwards() -> None:
    batcher = make_batcher(GUIDED)
    submit(batcher, "steady")
    submit(batcher, "idle", steps=3)
    for _ in range(500):
        step(batcher)
    submit(batcher, "idle")

    assert steps_with("idle", [step(batcher) for _ in range(10)]) == 5


def test_a_lane_that_had_more_than_its_part_where_it_cost_nothing_does_not_starve_afterwards() -> None:
    batcher = make_batcher(8, step_cost=lambda _shape, _rows: 1.0)
    for shape in (SMALL, LARGE):
        submit(batcher, "two shapes", 20, shape=shape)
    [leads] = submit(batcher, "leads", shape=SMALL)
    for _ in range(500):
        step(batcher)
    leads.future.cancel()

    assert sum(step(batcher).requests[0].cost.shape == SMALL for _ in range(20)) >= 5


def test_requests_of_one_caller_finish_in_the_order_of_submission() -> None:
    batcher = make_batcher(8)
    requests = {caller: submit(batcher, caller, 6, steps=5) for caller in "abc"}
    ended: list[EngineRequest] = []
    for _ in range(200):
        batch = batcher.next_batch() and step(batcher)
        if not batch:
            break
        ended += [request for request in batch.requests if request.resolved]

    for caller, own in requests.items():
        assert [request for request in ended if request.caller == caller] == own


def test_thousands_of_callers_all_step_and_are_forgotten() -> None:
    batcher = make_batcher(16)
    requests = [request for index in range(2_000) for request in submit(batcher, str(index), steps=1)]
    batches = list(itertools.takewhile(bool, (batcher.next_batch() and step(batcher) for _ in itertools.count())))

    assert len(batches) == 2_000 * GUIDED // 16, "no row is left free"
    assert all(request.resolved for request in requests)
    assert batcher.in_flight() == {MODEL: 0}


def test_a_burst_of_callers_that_leave_again_changes_nothing_for_those_who_stay() -> None:
    batcher = make_batcher(GUIDED)
    submit(batcher, "a", 5)
    submit(batcher, "b")
    for index in range(200):
        [short] = submit(batcher, f"visitor {index}")
        step(batcher)
        short.future.cancel()

    assert shares(step(batcher) for _ in range(100)) == pytest.approx({"a": 0.5, "b": 0.5}, abs=0.02)


# Priorities.


def test_background_work_keeps_its_share_among_many_callers() -> None:
    batcher = make_batcher(GUIDED)
    for caller in "abc":
        submit(batcher, caller, 5)
        submit(batcher, caller, 5, Priority.BACKGROUND)
    batches = [step(batcher) for _ in range(30 * BACKGROUND_EVERY)]

    background = [batch for batch in batches if batch.requests[0].priority == Priority.BACKGROUND]
    assert len(background) == 30
    assert shares(background) == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=0.02)


def test_free_rows_are_divided_evenly_among_the_background_work_of_several_callers() -> None:
    batcher = make_batcher(8, step_cost=lambda _shape, _rows: 1.0)
    submit(batcher, "interactive")
    submit(batcher, "a", 16, Priority.BACKGROUND)
    submit(batcher, "b", 16, Priority.BACKGROUND)
    batches = [step(batcher) for _ in range(20 * BACKGROUND_EVERY)]

    assert all(rows_of(batch) == 8 for batch in batches)
    had = Counter(request.caller for batch in batches for request in batch.requests)
    assert had["a"] == pytest.approx(had["b"], rel=0.02)


def test_background_work_does_not_get_the_rows_that_callers_leave_to_each_other() -> None:
    batcher = make_batcher(8)
    submit(batcher, "many", 20)
    submit(batcher, "one")
    submit(batcher, "background", 20, Priority.BACKGROUND)

    for _ in range(BACKGROUND_EVERY - 1):
        assert Counter(request.caller for request in step(batcher).requests) == {"many": 1, "one": 1}


# Finishing.


def test_callers_take_turns_at_being_finished() -> None:
    batcher = make_batcher(16)
    for caller, num in (("many", 4), ("one", 1), ("two", 2)):
        for request in submit(batcher, caller, num, steps=1, finishes_separately=True):
            request.started_at = request.stepped_at = 0.0
            batcher.move_to_finishing(request)
    finished = []
    while (finishing := batcher.next_finish()) is not None:
        batcher.retire(finishing)
        finished.append(finishing.caller)

    assert finished == ["many", "one", "two", "many", "two", "many", "many"]


# Waiting places.


def test_a_caller_that_fills_the_queue_is_refused_and_others_are_not() -> None:
    batcher = make_batcher(GUIDED, max_queue_size=8)
    submit(batcher, "many", 8)

    with pytest.raises(QueueFull):
        submit(batcher, "many")
    submit(batcher, "one")
    submit(batcher, "two", 2)
    with pytest.raises(QueueFull):
        submit(batcher, "two", 2)  # three callers have two places each, and a third is more than 8 // 3
    with pytest.raises(QueueFull):
        submit(batcher, "many")


def test_the_places_of_newcomers_are_bounded() -> None:
    batcher = make_batcher(GUIDED, max_queue_size=8)
    submit(batcher, "many", 8)
    for index in range(8):
        submit(batcher, f"newcomer {index}")

    with pytest.raises(QueueFull):
        submit(batcher, "one too many")
    assert batcher.in_flight() == {MODEL: 16}


def test_a_newcomer_is_told_to_wait_less_than_the_caller_of_the_queue() -> None:
    batcher = make_batcher(GUIDED)
    submit(batcher, "many", 20, steps=10)
    submit(batcher, "few", 2, steps=10)
    batcher.record_step(step(batcher), took_s=1.0)
    per_request = 10.0

    assert batcher.expected_wait_s(MODEL, caller="many") == pytest.approx(22 * per_request, rel=0.01)
    assert batcher.expected_wait_s(MODEL, caller="few") == pytest.approx(2 * 2 * per_request, rel=0.01)
    assert batcher.expected_wait_s(MODEL, caller="newcomer") == 0.0, "it is in the next step"
    assert batcher.expected_wait_s(MODEL) == pytest.approx(22 * per_request, rel=0.01)
    in_background = batcher.expected_wait_s(MODEL, Priority.BACKGROUND, "newcomer")
    assert in_background == pytest.approx(22 * per_request, rel=0.01), "behind all interactive work"


def test_the_time_to_retry_is_that_of_the_refused_caller() -> None:
    batcher = make_batcher(GUIDED, max_queue_size=4)
    submit(batcher, "many", 8 - 4, steps=10)
    submit(batcher, "few", 2, steps=10)
    batcher.record_step(batcher.next_batch() or pytest.fail("no step"), took_s=1.0)

    with pytest.raises(QueueFull) as few:
        submit(batcher, "few")
    with pytest.raises(QueueFull) as many:
        submit(batcher, "many")
    assert (few.value.retry_after_s, many.value.retry_after_s) == (40, 60)


# Random work.

lanes = st.lists(st.sampled_from([GUIDED, UNGUIDED]), min_size=1, max_size=6)
callers_work = st.dictionaries(
    st.sampled_from("abcd"),
    st.dictionaries(st.sampled_from([(1,), (2,), (3,)]), lanes, min_size=1),
    min_size=1,
)


@settings(max_examples=30, deadline=None)
@given(callers_work, st.integers(1, 8))
def test_every_caller_gets_nearly_its_even_share(work: Mapping[str, Mapping[Shape, list[int]]], max_rows: int) -> None:
    batcher = make_batcher(max_rows)
    for caller, by_shape in work.items():
        for shape, requests in by_shape.items():
            for rows in requests:
                submit(batcher, caller, shape=shape, rows=rows)
    had = shares(step(batcher) for _ in range(400))

    # Less than an even share: by the steps of two rows that do not fit, whose last row somebody else has.
    assert min(had.values()) >= 0.75 / len(work)
    assert had.keys() == work.keys()


@settings(max_examples=60, deadline=None)
@given(callers_work, st.integers(1, 8), st.floats(0.0, 10.0))
@example({"a": {(1,): [2]}, "b": {(1,): [1, 2]}, "c": {(2,): [2], (1,): [1, 2]}}, 6, 0.0)
def test_no_row_is_left_free_that_somebody_could_use(
    work: Mapping[str, Mapping[Shape, list[int]]], max_rows: int, fixed: float
) -> None:
    """A step of one caller is as large as alone; one of several leaves no rows that make nobody slower."""

    def step_cost(shape: Shape, rows: int) -> float:
        return (fixed + rows) * math.prod(shape)

    batcher = make_batcher(max_rows, step_cost=step_cost)
    for caller, by_shape in work.items():
        for shape, requests in by_shape.items():
            for rows in requests:
                submit(batcher, caller, shape=shape, rows=rows)

    for _ in range(60):
        batch = step(batcher)
        shape, rows = batch.requests[0].cost.shape, rows_of(batch)
        stepping = {request.caller for request in batch.requests}
        alone = {caller: rows_alone(work[caller][shape], max_rows) for caller in stepping}
        if len(stepping) == 1:
            assert rows == alone[stepping.pop()]
        else:
            left = [wanted[shape] for wanted in work.values() if shape in wanted]
            is_complete = rows == sum(map(sum, left))
            # At least: lanes that cannot pay get rows that the others leave, and do not make the step longer.
            longest = min(step_cost(shape, num) for num in alone.values())
            one_more = step_cost(shape, rows + GUIDED)
            assert is_complete or rows + GUIDED > max_rows or one_more > longest


def rows_alone(requests: list[int], max_rows: int) -> int:
    rows = requests[0]
    for more in requests[1:]:
        if rows + more > max_rows:
            break
        rows += more
    return rows
