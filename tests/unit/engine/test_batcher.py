"""The batcher decides who steps; no threads and no models here."""

import pytest

from app.engine.batcher import Batch, Batcher
from app.engine.request import EngineRequest, Priority
from app.errors import QueueFull


def make_batcher(*, max_queue_size: int = 64, **max_batch_sizes: int) -> Batcher:
    batcher = Batcher(max_queue_size=max_queue_size)
    for model, max_batch_size in max_batch_sizes.items():
        batcher.add_model(model, max_batch_size=max_batch_size)
    return batcher


def submit(batcher: Batcher, model: str, name: str, priority: Priority = Priority.INTERACTIVE) -> EngineRequest:
    request = EngineRequest(model, name, priority)
    batcher.submit(request)
    return request


def next_names(batcher: Batcher) -> tuple[str, list[object]] | None:
    batch = batcher.next_batch()
    return batch and (batch.model, [request.payload for request in batch.requests])


def next_batch(batcher: Batcher) -> Batch:
    batch = batcher.next_batch()
    assert batch is not None
    return batch


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
    submit(batcher, "clip", "somebody waits")

    assert [next_batch(batcher).model for _ in range(3)] == ["clip"] * 3


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


def test_background_work_fills_the_room_that_interactive_work_leaves() -> None:
    batcher = make_batcher(clip=3)
    submit(batcher, "clip", "background 1", Priority.BACKGROUND)
    submit(batcher, "clip", "background 2", Priority.BACKGROUND)
    submit(batcher, "clip", "background 3", Priority.BACKGROUND)
    submit(batcher, "clip", "interactive")

    assert next_names(batcher) == ("clip", ["interactive", "background 1", "background 2"])


def test_a_full_queue_refuses_at_once_and_says_when_to_come_again() -> None:
    batcher = make_batcher(max_queue_size=2, diffusion=1)
    submit(batcher, "diffusion", "a")
    submit(batcher, "diffusion", "b")

    with pytest.raises(QueueFull) as caught:
        submit(batcher, "diffusion", "c")
    assert caught.value.retry_after_s == 2, "two ahead, a second each as long as nothing was measured"


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


def test_a_cancelled_request_leaves_at_the_next_step() -> None:
    batcher = make_batcher(diffusion=1)
    running = submit(batcher, "diffusion", "running")
    next_batch(batcher)
    running.state = "half an image"
    running.future.cancel()

    assert batcher.next_batch() is None
    assert running.settled
    assert running.state is None, "its memory is free"


def test_depth_counts_who_waits() -> None:
    batcher = make_batcher(diffusion=1, clip=1)
    submit(batcher, "diffusion", "a")
    submit(batcher, "diffusion", "b", Priority.BACKGROUND)
    assert batcher.depth() == {"diffusion": 2, "clip": 0}

    next_batch(batcher)
    assert batcher.depth() == {"diffusion": 1, "clip": 0}


def test_drain_returns_all_that_waits_or_runs() -> None:
    batcher = make_batcher(diffusion=1)
    running = submit(batcher, "diffusion", "running")
    next_batch(batcher)
    waiting = submit(batcher, "diffusion", "waiting", Priority.BACKGROUND)

    assert batcher.drain() == [running, waiting]
    assert batcher.next_batch() is None
