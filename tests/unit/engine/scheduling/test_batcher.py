"""The batcher decides which requests step; no threads and no models here."""

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.engine.request import MIN_ROWS, EngineRequest, Priority, RequestCost, Shape
from app.engine.scheduling.batcher import MAX_RETRY_AFTER_S, Batch, Batcher
from app.engine.scheduling.device_time import LOAD_MEMORY_S, Load, Work
from app.engine.scheduling.row_budget import RowBudget
from app.engine.scheduling.turns import BACKGROUND_EVERY
from app.errors import QueueFull

GUIDED, UNGUIDED = 2, 1  # rows
SMALL, LARGE = (4, 4), (8, 8)  # a row of the large shape is four times the work
ENDLESS = 10**6  # steps


def make_batcher(*, max_queue_size: int = 64, **max_rows: int) -> Batcher:
    batcher = Batcher(max_queue_size=max_queue_size)
    for model, rows in max_rows.items():
        batcher.add_model(model, max_rows=rows)
    return batcher


def make_free_rows(batcher: Batcher, model: str, max_rows: int) -> None:
    """Let steps of a model cost the same whatever their rows."""
    batcher.set_row_budget(model, lambda _shape: max_rows, lambda _shape, _rows: 1.0)


def submit(
    batcher: Batcher,
    model: str,
    name: str,
    priority: Priority = Priority.INTERACTIVE,
    *,
    shape: Shape = (),
    rows: int = 1,
    steps: int = 1,
    weights: str | None = None,
    network: str = "",
) -> EngineRequest:
    cost = RequestCost(shape, rows, steps, weights=weights, network=network)
    request = EngineRequest(model, name, priority, cost)
    batcher.submit(request)
    return request


def next_names(batcher: Batcher) -> tuple[str, list[object]] | None:
    batch = batcher.next_batch()
    return (batch.model, [request.payload for request in batch.requests]) if batch else None


def next_batch(batcher: Batcher) -> Batch:
    batch = batcher.next_batch()
    assert batch is not None
    return batch


def take(batcher: Batcher, num_turns: int) -> list[Batch]:
    return [next_batch(batcher) for _ in range(num_turns)]


def test_nothing_to_do_is_none() -> None:
    assert make_batcher(clip=2).next_batch() is None


def test_requests_of_a_model_step_in_the_order_they_came() -> None:
    batcher = make_batcher(diffusion=1)
    first = submit(batcher, "diffusion", "first")
    submit(batcher, "diffusion", "second")

    assert next_names(batcher) == ("diffusion", ["first"])
    assert next_names(batcher) == ("diffusion", ["first"]), "a running request goes before a waiting one"
    batcher.retire(first)
    assert next_names(batcher) == ("diffusion", ["second"])


def test_a_batch_takes_as_many_as_may_step_together() -> None:
    batcher = make_batcher(clip=2)
    for name in "abc":
        submit(batcher, "clip", name)

    assert next_names(batcher) == ("clip", ["a", "b"])


def test_a_batch_is_filled_by_rows() -> None:
    batcher = make_batcher(diffusion=5)
    submit(batcher, "diffusion", "a", rows=GUIDED)
    submit(batcher, "diffusion", "b", rows=UNGUIDED)
    submit(batcher, "diffusion", "c", rows=GUIDED)
    submit(batcher, "diffusion", "d", rows=UNGUIDED)

    assert next_names(batcher) == ("diffusion", ["a", "b", "c"])


def test_a_request_that_does_not_fit_is_not_overtaken() -> None:
    batcher = make_batcher(diffusion=4)
    first = submit(batcher, "diffusion", "first", rows=3, steps=ENDLESS)
    submit(batcher, "diffusion", "guided", rows=GUIDED)
    submit(batcher, "diffusion", "unguided", rows=UNGUIDED)

    assert next_names(batcher) == ("diffusion", ["first"])
    batcher.retire(first)
    assert next_names(batcher) == ("diffusion", ["guided", "unguided"])


def test_a_request_of_more_rows_than_the_budget_runs_alone() -> None:
    batcher = make_batcher(diffusion=1)
    large = submit(batcher, "diffusion", "large", rows=GUIDED)
    submit(batcher, "diffusion", "small", rows=UNGUIDED)

    assert next_names(batcher) == ("diffusion", ["large"])
    batcher.retire(large)
    assert next_names(batcher) == ("diffusion", ["small"])


def test_a_batch_has_one_shape() -> None:
    batcher = make_batcher(diffusion=8)
    submit(batcher, "diffusion", "small 1", shape=SMALL)
    submit(batcher, "diffusion", "large", shape=LARGE)
    submit(batcher, "diffusion", "small 2", shape=SMALL)
    submit(batcher, "diffusion", "large in the background", Priority.BACKGROUND, shape=LARGE)

    assert next_names(batcher) == ("diffusion", ["small 1", "small 2"])


def test_a_batch_has_the_same_weights() -> None:
    batcher = make_batcher(diffusion=8)
    make_free_rows(batcher, "diffusion", 8)
    submit(batcher, "diffusion", "plain 1", shape=SMALL)
    submit(batcher, "diffusion", "styled", shape=SMALL, weights="style")
    submit(batcher, "diffusion", "plain 2", shape=SMALL)
    submit(batcher, "diffusion", "styled in the background", Priority.BACKGROUND, shape=SMALL, weights="style")

    assert next_names(batcher) == ("diffusion", ["plain 1", "plain 2"])
    assert next_names(batcher) == ("diffusion", ["styled", "styled in the background"])
    turns = [str(batch.requests[0].payload).split()[0] for batch in take(batcher, 20)]
    assert turns.count("plain") >= 5, "the two share the time, of which a step of two rows takes more"


def test_the_row_budget_may_depend_on_the_shape_and_change() -> None:
    batcher = make_batcher(diffusion=1)
    batcher.set_row_budget("diffusion", lambda shape: 3 if shape == SMALL else 2)
    for name in "abcd":
        submit(batcher, "diffusion", f"small {name}", shape=SMALL)
        submit(batcher, "diffusion", f"large {name}", shape=LARGE)

    sizes = {len(batch.requests) for batch in take(batcher, 10) if batch.requests[0].cost.shape == SMALL}
    assert sizes == {3}
    sizes = {len(batch.requests) for batch in take(batcher, 10) if batch.requests[0].cost.shape == LARGE}
    assert sizes == {2}


def test_shapes_of_a_model_share_the_time_and_not_the_turns() -> None:
    batcher = make_batcher(diffusion=4)
    for name in "abc":
        submit(batcher, "diffusion", f"small {name}", shape=SMALL)
        submit(batcher, "diffusion", f"large {name}", shape=LARGE)

    turns = Counter(batch.requests[0].cost.shape for batch in take(batcher, 500))
    assert turns == {SMALL: 400, LARGE: 100}


def test_a_shape_that_fills_its_rows_gets_no_more_time_than_one_that_does_not() -> None:
    batcher = make_batcher(diffusion=8)
    submit(batcher, "diffusion", "alone", shape=(4, 8), rows=GUIDED)
    for name in "abcd":
        submit(batcher, "diffusion", name, shape=(8, 4), rows=GUIDED)

    turns = Counter(batch.requests[0].cost.shape for batch in take(batcher, 500))
    assert turns == {(4, 8): 400, (8, 4): 100}


def test_a_measured_cost_counts_instead_of_pixels() -> None:
    batcher = make_batcher(diffusion=4)
    batcher.set_row_budget("diffusion", lambda _shape: 4, lambda shape, _rows: 1.5 if shape == LARGE else 1.0)
    submit(batcher, "diffusion", "small", shape=SMALL)
    submit(batcher, "diffusion", "large", shape=LARGE)

    turns = Counter(batch.requests[0].cost.shape for batch in take(batcher, 500))
    assert turns == {SMALL: 300, LARGE: 200}


def test_networks_of_a_model_share_the_time_by_what_their_steps_cost() -> None:
    batcher = make_batcher(diffusion=4)
    batcher.set_row_budget("diffusion", lambda _shape: 4, lambda _shape, _rows: 1.0)
    batcher.set_row_budget("diffusion", lambda _shape: 1, lambda _shape, _rows: 4.0, network="large")
    for name in "ab":
        submit(batcher, "diffusion", name, shape=SMALL, steps=ENDLESS)
        submit(batcher, "diffusion", name, shape=SMALL, steps=ENDLESS, weights="large", network="large")

    batches = take(batcher, 500)
    turns = Counter((batch.requests[0].cost.network, batch.rows) for batch in batches)
    assert turns == {("", 2): 400, ("large", 1): 100}


def test_memory_and_speed_are_each_networks_own() -> None:
    batcher = make_batcher(diffusion=8)
    for network, step_s in (("", 1.0), ("large", 3.0)):
        batcher.set_row_budget("diffusion", lambda _shape: 8, lambda _shape, rows: 1.0 * rows, network=network)
        for name in "abcd":
            submit(batcher, "diffusion", name, shape=SMALL, network=network)
        batch = next_batch(batcher)
        batcher.record_step(batch, step_s * batch.rows)
    assert batcher.reduce_rows(batch.requests) == 2
    work = [batcher.estimate("diffusion", [Work(SMALL, 8, 8, network=name)]).seconds for name in ("", "large", "new")]
    assert work == [8.0, 24.0, None]
    assert len(next_batch(batcher).requests) == 4, "the model's own steps are no smaller"


def test_the_first_use_of_a_shape_is_estimated_and_says_nothing_of_its_speed() -> None:
    probed = {LARGE}
    batcher = make_batcher(diffusion=4)
    batcher.set_row_budget(
        "diffusion",
        lambda _shape: 4,
        lambda _shape, rows: 0.1 * rows,
        first_use=lambda shape: 0.0 if shape in probed else 0.5,
    )
    work = [Work(SMALL, row_steps=20, together=4)]
    assert batcher.estimate("diffusion", work).seconds == pytest.approx(20 * 0.1 + 0.5)

    submit(batcher, "diffusion", "image", shape=SMALL, rows=GUIDED, steps=3)
    first = next_batch(batcher)
    probed.add(SMALL)  # by the step
    batcher.record_step(first, took_s=3.0)
    found = batcher.estimate("diffusion", work)
    assert found.seconds == pytest.approx(20 * 0.1)
    assert found.basis == "calibrated"
    batcher.record_step(next_batch(batcher), took_s=0.4)
    found = batcher.estimate("diffusion", work)
    assert found.seconds == pytest.approx(20 * 0.2)
    assert found.basis == "measured"


def test_the_measured_row_budget_fits_the_batcher() -> None:
    budget = RowBudget({2: 0.2, 4: 0.3, 8: 0.6}, SMALL)
    batcher = make_batcher(diffusion=1)
    batcher.set_row_budget("diffusion", budget.rows, budget.seconds)
    for name in "abc":
        submit(batcher, "diffusion", name, shape=SMALL, rows=GUIDED)

    assert next_names(batcher) == ("diffusion", ["a", "b"])


def test_a_shape_that_always_has_new_work_does_not_block_another() -> None:
    batcher = make_batcher(diffusion=1)
    submit(batcher, "diffusion", "new", shape=SMALL)
    submit(batcher, "diffusion", "patient", shape=LARGE)

    names = []
    for _ in range(10):
        batch = next_batch(batcher)
        names += [request.payload for request in batch.requests]
        for request in batch.requests:
            if request.payload == "new":
                batcher.retire(request)
                submit(batcher, "diffusion", "new", shape=SMALL)
    assert names == ["new", "patient"] * 5, "a new request of one step goes behind the waiting one"


def test_a_late_request_joins_at_the_next_step() -> None:
    batcher = make_batcher(clip=2)
    submit(batcher, "clip", "early")
    next_batch(batcher)
    late = submit(batcher, "clip", "late")

    batch = next_batch(batcher)
    assert [request.payload for request in batch.requests] == ["early", "late"]
    assert batch.admitted == [late], "only the new one wants to be prepared"


def test_models_with_work_take_turns() -> None:
    batcher = make_batcher(diffusion=1, clip=16)
    submit(batcher, "diffusion", "long")
    next_batch(batcher)
    short = submit(batcher, "clip", "short")

    assert next_names(batcher) == ("clip", ["short"])
    batcher.retire(short)
    assert next_names(batcher) == ("diffusion", ["long"])


def test_three_busy_models_get_the_same_number_of_turns() -> None:
    batcher = make_batcher(a=1, b=1, c=1)
    for model in "abc":
        submit(batcher, model, "endless")

    turns = [next_batch(batcher).model for _ in range(9)]
    assert turns[:3] * 3 == turns
    assert sorted(turns[:3]) == ["a", "b", "c"]


def test_interactive_work_of_any_model_goes_before_background_work() -> None:
    batcher = make_batcher(diffusion=1, clip=1)
    submit(batcher, "diffusion", "dataset", Priority.BACKGROUND)
    next_batch(batcher)
    submit(batcher, "clip", "interactive diffusion")

    assert [next_batch(batcher).model for _ in range(3)] == ["clip"] * 3


def test_endless_interactive_work_leaves_background_work_its_share_of_the_turns() -> None:
    batcher = make_batcher(diffusion=1, clip=1)
    submit(batcher, "diffusion", "interactive diffusion")
    submit(batcher, "clip", "interactive clip")
    submit(batcher, "diffusion", "dataset", Priority.BACKGROUND)
    submit(batcher, "clip", "scores", Priority.BACKGROUND)

    payloads = [next_batch(batcher).requests[0].payload for _ in range(4 * BACKGROUND_EVERY)]
    led = [payload for payload in payloads if payload in ("dataset", "scores")]
    assert led == ["dataset", "scores"] * 2, "one in BACKGROUND_EVERY, the models in turns"
    assert [i % BACKGROUND_EVERY for i, payload in enumerate(payloads) if payload in led] == [BACKGROUND_EVERY - 1] * 4


def test_in_a_background_turn_interactive_work_of_the_same_shape_fills_the_rows() -> None:
    batcher = make_batcher(diffusion=3)
    for name in "ab":
        submit(batcher, "diffusion", f"interactive {name}", shape=SMALL, rows=GUIDED)
    submit(batcher, "diffusion", "background", Priority.BACKGROUND, shape=SMALL, rows=UNGUIDED)

    *others, last = take(batcher, BACKGROUND_EVERY)
    assert [request.payload for request in last.requests] == ["background", "interactive a"]
    assert all(batch.requests[0].payload == "interactive a" for batch in others)


def test_who_fills_free_rows_pays_for_what_they_add() -> None:
    batcher = make_batcher(diffusion=2)
    submit(batcher, "diffusion", "leads", shape=SMALL)
    submit(batcher, "diffusion", "leads too", shape=(2, 8))
    submit(batcher, "diffusion", "rides", Priority.BACKGROUND, shape=SMALL)

    batches = take(batcher, 80)
    steps = Counter(request.payload for batch in batches for request in batch.requests)
    assert sum(batch.requests[0].payload == "rides" for batch in batches) == 10
    assert steps["leads"] == pytest.approx(steps["leads too"], abs=2)


def test_a_running_background_request_is_preempted_and_goes_on_with_its_state() -> None:
    batcher = make_batcher(diffusion=1)
    background = submit(batcher, "diffusion", "background", Priority.BACKGROUND)
    next_batch(batcher)
    background.state = "half an image"
    interactive = submit(batcher, "diffusion", "interactive")

    assert next_names(batcher) == ("diffusion", ["interactive"])
    batcher.retire(interactive)
    batch = next_batch(batcher)
    assert batch.requests == [background]
    assert batch.admitted == [], "it is not prepared again"
    assert background.state == "half an image"


def test_a_running_interactive_request_is_not_preempted_by_another() -> None:
    batcher = make_batcher(diffusion=1)
    submit(batcher, "diffusion", "first")
    next_batch(batcher)
    submit(batcher, "diffusion", "second")

    assert next_names(batcher) == ("diffusion", ["first"])


def test_preempted_requests_keep_their_order() -> None:
    batcher = make_batcher(diffusion=4)
    make_free_rows(batcher, "diffusion", 4)
    for name in "ab":
        submit(batcher, "diffusion", f"background {name}", Priority.BACKGROUND, rows=GUIDED)
    next_batch(batcher)
    submit(batcher, "diffusion", "background c", Priority.BACKGROUND, rows=UNGUIDED)
    interactive = submit(batcher, "diffusion", "interactive", rows=GUIDED)

    assert next_names(batcher) == ("diffusion", ["interactive", "background a"])
    interactive.cost = RequestCost(rows=3)
    assert next_names(batcher) == ("diffusion", ["interactive"]), "c fits, but b runs and comes first"
    batcher.retire(interactive)
    assert next_names(batcher) == ("diffusion", ["background a", "background b"])


def test_background_work_fills_the_room_that_interactive_work_leaves() -> None:
    batcher = make_batcher(clip=3)
    make_free_rows(batcher, "clip", 3)
    submit(batcher, "clip", "background 1", Priority.BACKGROUND)
    submit(batcher, "clip", "background 2", Priority.BACKGROUND)
    submit(batcher, "clip", "background 3", Priority.BACKGROUND)
    submit(batcher, "clip", "interactive")

    assert next_names(batcher) == ("clip", ["interactive", "background 1", "background 2"])


@pytest.mark.parametrize(("row_s", "num"), [(0.0, 7), (0.04, 5), (0.1, 2), (0.4, 0)])
def test_background_work_makes_an_interactive_step_at_most_a_quarter_longer(row_s: float, num: int) -> None:
    batcher = make_batcher(diffusion=8)
    batcher.set_row_budget("diffusion", lambda _shape: 8, lambda _shape, rows: 0.9 + row_s * rows)
    submit(batcher, "diffusion", "interactive")
    for number in range(9):
        submit(batcher, "diffusion", f"background {number}", Priority.BACKGROUND)

    *others, last = [len(batch.requests) for batch in take(batcher, BACKGROUND_EVERY)]
    assert others == [1 + num] * (BACKGROUND_EVERY - 1)
    assert last == 8, "a step of its own is full"


def submit_stepped(
    batcher: Batcher, name: str, priority: Priority = Priority.INTERACTIVE, *, shape: Shape = ()
) -> EngineRequest:
    """Submit a request and let it take its only step."""
    request = EngineRequest("diffusion", name, priority, RequestCost(shape, finishes_separately=True))
    batcher.submit(request)
    request.started_at = request.stepped_at = 0.0
    request.steps_done = 1
    batcher.move_to_finishing(request)
    return request


def finish_next(batcher: Batcher) -> object:
    request = batcher.next_finish()
    if request is None:
        return None
    batcher.retire(request)
    return request.payload


def test_one_request_is_finished_between_two_steps() -> None:
    batcher = make_batcher(diffusion=1)
    for name in "abc":
        submit_stepped(batcher, name)
    steps = submit(batcher, "diffusion", "steps")

    assert [finish_next(batcher), finish_next(batcher)] == ["a", None]
    assert next_names(batcher) == ("diffusion", ["steps"])
    assert [finish_next(batcher), finish_next(batcher)] == ["b", None]
    batcher.retire(steps)
    assert [finish_next(batcher), finish_next(batcher)] == ["c", None]


def test_the_step_of_any_model_and_priority_goes_before_a_second_finish() -> None:
    batcher = make_batcher(diffusion=1, clip=1)
    for name in "ab":
        submit_stepped(batcher, name)
    submit(batcher, "clip", "scores", Priority.BACKGROUND)

    assert [finish_next(batcher), finish_next(batcher)] == ["a", None]


def test_interactive_requests_are_finished_first_and_background_ones_get_their_share() -> None:
    batcher = make_batcher(diffusion=1)
    for index in range(BACKGROUND_EVERY):
        submit_stepped(batcher, f"background {index}", Priority.BACKGROUND)
    for index in range(3 * BACKGROUND_EVERY):
        submit_stepped(batcher, f"interactive {index}")

    finished = [str(finish_next(batcher)) for _ in range(2 * BACKGROUND_EVERY)]
    expected = [f"interactive {index}" for index in range(2 * BACKGROUND_EVERY - 2)]
    expected.insert(BACKGROUND_EVERY - 1, "background 0")
    assert finished == [*expected, "background 1"]


def test_a_request_that_waits_to_be_finished_counts_as_waiting() -> None:
    batcher = make_batcher(max_queue_size=2, diffusion=1)
    submit_stepped(batcher, "done")
    submit(batcher, "diffusion", "waiting")
    assert batcher.in_flight() == {"diffusion": 2}

    with pytest.raises(QueueFull):
        submit(batcher, "diffusion", "refused")
    submit(batcher, "diffusion", "of another priority", Priority.BACKGROUND)
    assert finish_next(batcher) == "done"
    submit(batcher, "diffusion", "accepted")


def test_the_expected_wait_holds_the_finishes_at_their_measured_speed() -> None:
    batcher = make_batcher(diffusion=4)
    running = EngineRequest("diffusion", "running", cost=RequestCost(SMALL, GUIDED, steps=10, finishes_separately=True))
    batcher.submit(running)
    batcher.record_step(next_batch(batcher), took_s=1.0)
    running.steps_done = 1
    assert batcher.expected_wait_s("diffusion") == pytest.approx(9.0 + 1.0)  # a finish as long as two row-steps
    done = submit_stepped(batcher, "done", shape=SMALL)
    batcher.record_finish(done, took_s=0.5)
    assert batcher.expected_wait_s("diffusion") == pytest.approx(9.0 + 2 * 0.5)

    batcher.retire(done)
    submit_stepped(batcher, "large", Priority.BACKGROUND, shape=LARGE)
    assert batcher.expected_wait_s("diffusion") == pytest.approx(9.5)
    assert batcher.expected_wait_s("diffusion", Priority.BACKGROUND) == pytest.approx(9.5 + 4 * 0.5)


def test_a_cancelled_request_is_not_finished() -> None:
    batcher = make_batcher(diffusion=1)
    cancelled = submit_stepped(batcher, "cancelled")
    cancelled.state = "latents"
    cancelled.future.cancel()
    submit_stepped(batcher, "wanted")

    assert finish_next(batcher) == "wanted"
    assert cancelled.resolved
    assert cancelled.state is None


def test_draining_includes_requests_that_wait_to_be_finished() -> None:
    batcher = make_batcher(diffusion=1)
    requests = [submit(batcher, "diffusion", "waiting"), submit_stepped(batcher, "done")]

    assert batcher.drain() == requests
    assert batcher.next_finish() is None


def test_a_full_queue_refuses_at_once_with_a_retry_time() -> None:
    batcher = make_batcher(max_queue_size=2, diffusion=1)
    submit(batcher, "diffusion", "a")
    submit(batcher, "diffusion", "b")

    with pytest.raises(QueueFull) as caught:
        submit(batcher, "diffusion", "c")
    assert caught.value.retry_after_s == 2, "two ahead, a second each as long as nothing was measured"


def test_the_expected_wait_is_the_remaining_work_at_the_measured_speed() -> None:
    batcher = make_batcher(diffusion=4, clip=16)
    running = submit(batcher, "diffusion", "running", shape=SMALL, rows=GUIDED, steps=10)
    batch = next_batch(batcher)
    batcher.record_step(batch, took_s=1.0)  # 2 rows of 16 pixels
    running.steps_done = 1
    assert batcher.expected_wait_s("diffusion") == pytest.approx(9.0)

    submit(batcher, "diffusion", "waiting", shape=LARGE, rows=UNGUIDED, steps=5)  # 5 steps of 64 pixels
    assert batcher.expected_wait_s("diffusion") == pytest.approx(9.0 + 10.0)
    submit(batcher, "diffusion", "background", Priority.BACKGROUND, shape=SMALL, rows=GUIDED, steps=3)
    assert batcher.expected_wait_s("diffusion") == pytest.approx(19.0), "it does not wait for background work"
    assert batcher.expected_wait_s("diffusion", Priority.BACKGROUND) == pytest.approx(22.0)
    assert batcher.expected_wait_s("clip") == 0


def test_a_step_counts_the_rows_that_its_requests_have_in_it() -> None:
    """A request whose later steps have fewer rows takes less of the device's time in them."""
    now = 0.0
    batcher = Batcher(max_queue_size=8, load=Load(lambda: now))
    batcher.add_model("diffusion", max_rows=4)
    make_free_rows(batcher, "diffusion", 4)
    submit(batcher, "diffusion", "guided", shape=SMALL, rows=GUIDED, steps=4)
    cost = RequestCost(SMALL, GUIDED, steps=4, step_rows=(2, 1, 1, 1))
    partly = EngineRequest("diffusion", "guided at first", Priority.BACKGROUND, cost)
    batcher.submit(partly)

    batch = next_batch(batcher)
    assert (batch.row_counts, batch.rows) == ((2, 2), 4)
    partly.steps_done += 1
    batch = next_batch(batcher)
    assert (batch.row_counts, batch.rows) == ((2, 1), 3)
    now = 3.0
    batcher.record_step(batch, took_s=3.0)
    whole = batcher.estimate("diffusion", [Work(SMALL, row_steps=1, together=1)]).interactive_share
    assert whole == pytest.approx(2.0 / (LOAD_MEMORY_S * -math.expm1(-3.0 / LOAD_MEMORY_S)))


def test_the_measured_speed_follows_recent_turns() -> None:
    batcher = make_batcher(clip=16)
    for name in "abcd":
        submit(batcher, "clip", name)
    batch = next_batch(batcher)
    batcher.record_step(batch, took_s=0.4)
    assert batcher.expected_wait_s("clip") == pytest.approx(0.4)
    batcher.record_step(batch, took_s=0.8)
    assert 0.6 < batcher.expected_wait_s("clip") < 0.65, "two turns count about the same"
    for _ in range(100):
        batcher.record_step(batch, took_s=4.0)
    assert batcher.expected_wait_s("clip") == pytest.approx(4.0, rel=0.01)


@pytest.mark.parametrize(("took_s", "retry_after_s"), [(0.001, 1), (2.25, 5), (1e6, MAX_RETRY_AFTER_S)])
def test_the_retry_time_is_the_expected_wait_within_bounds(took_s: float, retry_after_s: int) -> None:
    batcher = make_batcher(max_queue_size=1, diffusion=1)
    submit(batcher, "diffusion", "running")
    batcher.record_step(next_batch(batcher), took_s=took_s)
    submit(batcher, "diffusion", "waiting")

    with pytest.raises(QueueFull) as caught:
        submit(batcher, "diffusion", "refused")
    assert caught.value.retry_after_s == retry_after_s


def test_background_work_cannot_fill_the_queue_for_others() -> None:
    batcher = make_batcher(max_queue_size=1, diffusion=1, clip=1)
    submit(batcher, "diffusion", "background", Priority.BACKGROUND)
    with pytest.raises(QueueFull):
        submit(batcher, "diffusion", "more background", Priority.BACKGROUND)

    submit(batcher, "diffusion", "interactive")
    submit(batcher, "clip", "another model")


def test_a_cancelled_request_makes_room_in_a_full_queue() -> None:
    batcher = make_batcher(max_queue_size=1, diffusion=1)
    submit(batcher, "diffusion", "unwanted").future.cancel()

    submit(batcher, "diffusion", "wanted")
    assert next_names(batcher) == ("diffusion", ["wanted"])


def test_a_cancelled_request_keeps_its_state_while_a_step_may_work_on_it() -> None:
    batcher = make_batcher(max_queue_size=1, diffusion=1)
    running = submit(batcher, "diffusion", "running")
    next_batch(batcher)
    running.state = "in the middle of a step"
    running.future.cancel()
    submit(batcher, "diffusion", "waiting")
    with pytest.raises(QueueFull):
        submit(batcher, "diffusion", "refused")

    assert running.state == "in the middle of a step"


def test_a_cancelled_request_leaves_at_the_next_step() -> None:
    batcher = make_batcher(diffusion=1)
    running = submit(batcher, "diffusion", "running")
    next_batch(batcher)
    running.state = "half an image"
    running.future.cancel()

    assert batcher.next_batch() is None
    assert running.resolved
    assert running.state is None, "its memory is free"


def test_after_running_out_of_memory_steps_take_half_the_rows() -> None:
    batcher = make_batcher(diffusion=8)
    for name in "abcd":
        submit(batcher, "diffusion", name, shape=SMALL, rows=GUIDED)
    batch = next_batch(batcher)

    assert batcher.reduce_rows(batch.requests) == 4
    again = next_batch(batcher)
    assert [request.payload for request in again.requests] == ["a", "b"]
    assert again.admitted == []
    assert batcher.reduce_rows(again.requests) == MIN_ROWS
    alone = next_batch(batcher)
    assert [request.payload for request in alone.requests] == ["a"]
    assert batcher.reduce_rows(alone.requests) is None


def test_the_memory_limit_counts_pixels() -> None:
    batcher = make_batcher(diffusion=8)
    large = [submit(batcher, "diffusion", name, shape=LARGE, rows=GUIDED) for name in "ab"]
    assert batcher.reduce_rows(large) == 2
    for request in large:
        batcher.retire(request)
    for name in "cdefg":
        submit(batcher, "diffusion", name, shape=SMALL, rows=GUIDED)

    assert next_names(batcher) == ("diffusion", ["c", "d", "e", "f"]), "two large rows are eight small ones"


def test_two_rows_are_the_smallest_step_to_try() -> None:
    batcher = make_batcher(diffusion=8)
    requests = [submit(batcher, "diffusion", name, rows=UNGUIDED) for name in "abc"]

    assert batcher.reduce_rows(requests) == MIN_ROWS
    assert batcher.reduce_rows(requests[:2]) is None


@pytest.mark.parametrize("numbers", [{"rows": 0}, {"steps": 0}, {"shape": (8, 0)}, {"shape": (-1,)}])
def test_a_cost_with_numbers_below_one_is_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=">= 1"):
        RequestCost(**numbers)  # type: ignore[arg-type]


def test_drain_returns_all_that_waits_or_runs() -> None:
    batcher = make_batcher(diffusion=1)
    running = submit(batcher, "diffusion", "running")
    next_batch(batcher)
    waiting = submit(batcher, "diffusion", "waiting", Priority.BACKGROUND)

    assert batcher.drain() == [running, waiting]
    assert batcher.next_batch() is None


# Random work: any requests in any order.

MODELS = {"diffusion": 4, "clip": 3}
SHAPES: list[Shape] = [(), (2,), (1, 3)]
MAX_REQUEST_ROWS, MAX_REQUEST_STEPS = 5, 4

# In one round of the deficit round robin each other shape spends a quantum, the cost of the dearest step, and what the
# last round left it, less than a step. Models take turns, and so do the priorities.
DEAREST_STEP = max(MAX_REQUEST_ROWS, *MODELS.values()) * math.prod(SHAPES[-1])
MAX_ROUND = 1 + (len(SHAPES) - 1) * (DEAREST_STEP + 1)
MAX_TURNS_BETWEEN_STEPS = {
    Priority.INTERACTIVE: len(MODELS) * MAX_ROUND * BACKGROUND_EVERY // (BACKGROUND_EVERY - 1) + 1,
    Priority.BACKGROUND: len(MODELS) * MAX_ROUND * BACKGROUND_EVERY,
}

submissions = st.builds(
    EngineRequest,
    model=st.sampled_from(list(MODELS)),
    payload=st.none(),
    priority=st.sampled_from(Priority),
    cost=st.builds(
        RequestCost,
        shape=st.sampled_from(SHAPES),
        rows=st.integers(1, MAX_REQUEST_ROWS),
        steps=st.integers(1, MAX_REQUEST_STEPS),
        finishes_separately=st.booleans(),
    ),
)
cancellations = st.integers(0, 30)
turns = st.none()


class Simulation:
    """The engine without threads and models; checks every turn."""

    def __init__(self) -> None:
        self.batcher = make_batcher(max_queue_size=1000, **MODELS)
        self.requests: list[EngineRequest] = []
        self.waited: Counter[EngineRequest] = Counter()
        self.interactive_was_delayed = False
        self.finished_since_step = 0

    def submit(self, request: EngineRequest) -> None:
        self.requests.append(request)
        self.batcher.submit(request)

    def cancel(self, index: int) -> None:
        if index < len(self.requests):
            self.requests[index].future.cancel()

    def turn(self) -> bool:
        unfinished = [request for request in self.requests if not request.future.done()]
        stepping = [request for request in unfinished if request.stepped_at is None]
        finishing = self.batcher.next_finish()
        if finishing is not None:
            self.finish(finishing, stepping)
            return True
        batch = self.batcher.next_batch()
        assert (batch is None) == (not unfinished)
        if batch is None:
            return False
        self.check(batch, stepping)
        self.finished_since_step = 0
        for request in batch.requests:
            request.steps_done += 1
            if request.steps_done == request.cost.steps:
                self.end(request)
        return True

    def end(self, request: EngineRequest) -> None:
        if request.cost.finishes_separately:
            request.stepped_at = 0.0
            self.batcher.move_to_finishing(request)
        else:
            request.resolve(None)
            self.batcher.retire(request)

    def finish(self, request: EngineRequest, stepping: list[EngineRequest]) -> None:
        assert request.stepped_at is not None
        self.finished_since_step += 1
        assert self.finished_since_step == 1 or not stepping
        request.resolve(None)
        self.batcher.retire(request)

    def check(self, batch: Batch, unfinished: list[EngineRequest]) -> None:
        rows = sum(request.cost.rows for request in batch.requests)
        assert rows <= MODELS[batch.model] or len(batch.requests) == 1
        assert len({(request.model, request.cost.shape) for request in batch.requests}) == 1
        assert batch.admitted == [request for request in batch.requests if request.steps_done == 0]
        self.check_priorities(batch, unfinished)
        self.check_order(batch, unfinished)

    def check_priorities(self, batch: Batch, unfinished: list[EngineRequest]) -> None:
        has_interactive = any(request.priority == Priority.INTERACTIVE for request in unfinished)
        is_delayed = has_interactive and batch.requests[0].priority == Priority.BACKGROUND
        assert not (is_delayed and self.interactive_was_delayed), "by one background step at most"
        self.interactive_was_delayed = is_delayed

    def check_order(self, batch: Batch, unfinished: list[EngineRequest]) -> None:
        """The first of each lane is never passed over by its followers, and not for long by anybody."""
        firsts: dict[tuple[str, Priority, Shape], EngineRequest] = {}
        for request in unfinished:
            firsts.setdefault((request.model, request.priority, request.cost.shape), request)
        for request in batch.requests:
            assert firsts[request.model, request.priority, request.cost.shape] in batch.requests
        for request in firsts.values():
            self.waited[request] = 0 if request in batch.requests else self.waited[request] + 1
            assert self.waited[request] <= MAX_TURNS_BETWEEN_STEPS[request.priority]


@settings(deadline=None)
@given(st.lists(st.one_of(submissions, submissions, cancellations, turns), max_size=60))
def test_every_request_takes_its_steps_or_is_cancelled(
    events: list[EngineRequest | int | None],
) -> None:
    simulation = Simulation()
    for event in events:
        if isinstance(event, EngineRequest):
            simulation.submit(event)
        elif event is None:
            simulation.turn()
        else:
            simulation.cancel(event)
    num_turns = sum(1 for _ in itertools.takewhile(bool, iter(simulation.turn, None)))

    assert num_turns <= len(simulation.requests) * (MAX_REQUEST_STEPS + 1), "no turn without a step or a finish"
    for request in simulation.requests:
        assert request.resolved
        assert request.future.cancelled() or request.steps_done == request.cost.steps
    assert simulation.batcher.in_flight() == dict.fromkeys(MODELS, 0)


@settings(max_examples=25, deadline=None)
@given(st.lists(submissions, min_size=1, max_size=12))
def test_no_request_starves_among_endless_ones(requests: list[EngineRequest]) -> None:
    simulation = Simulation()
    for request in requests:
        request.cost = RequestCost(request.cost.shape, request.cost.rows, ENDLESS)
        simulation.submit(request)
    for _ in range(MAX_TURNS_BETWEEN_STEPS[Priority.BACKGROUND] + 1):
        assert simulation.turn()
