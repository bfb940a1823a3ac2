"""The engine's loop with fake models: order, failures, cancelling, starting and stopping."""

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, wait
from typing import Any

import pytest

from app.engine.engine import Engine
from app.engine.request import Priority, RequestCost
from app.engine.runner import Runner
from app.engine.scheduling.batcher import Batch, Batcher
from app.engine.scheduling.idle_work import IdleWork
from app.errors import InferenceFailed, Invalid, ModelNotReady, QueueFull, Unavailable
from testing.fakes import FakePayload, FakeRunner
from testing.waiting import PATIENCE_S

StartEngine = Callable[..., Engine]


@pytest.fixture
def start_engine() -> Iterator[StartEngine]:
    """Starts engines with fake runners under the given names, ready, and closes them."""
    engines: list[tuple[Engine, dict[str, FakeRunner]]] = []

    def start(max_rows: int = 1, max_queue_size: int = 64, **runners: FakeRunner) -> Engine:
        engine = Engine(max_queue_size=max_queue_size)
        is_loaded = threading.Event()
        for name, runner in runners.items():
            engine.add_model(name, lambda runner=runner: runner, max_rows=max_rows)  # type: ignore[misc]
        engine.add_model("last", lambda: signal_loaded(is_loaded))
        engine.start()
        assert is_loaded.wait(PATIENCE_S)
        engines.append((engine, runners))
        return engine

    yield start
    for engine, runners in engines:
        for runner in runners.values():
            runner.open()
        engine.close()


def signal_loaded(event: threading.Event) -> FakeRunner:
    event.set()
    return FakeRunner()


def test_the_end_of_loading_is_told_once_every_model_is_ready_or_has_failed() -> None:
    told: list[dict[str, str]] = []
    is_told = threading.Event()

    def tell() -> None:
        told.append({name: status.state for name, status in engine.status().items()})
        is_told.set()

    def fail() -> FakeRunner:
        raise OSError("no file")

    engine = Engine(on_loaded=tell)
    engine.add_model("broken", fail)
    engine.add_model("sound", FakeRunner)
    engine.start()
    assert is_told.wait(PATIENCE_S)
    engine.close()
    assert told == [{"broken": "failed", "sound": "ready"}]


def test_a_request_takes_its_steps_and_gets_its_result(start_engine: StartEngine) -> None:
    runner = FakeRunner()
    engine = start_engine(model=runner)

    future = engine.submit("model", FakePayload("image", num_steps=3))
    assert future.result(PATIENCE_S) == "image"
    assert runner.batches == [["image"]] * 3
    assert runner.prepared == ["image"]


def test_waiting_requests_can_be_refused_while_the_running_ones_continue(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(model=runner)
    running = engine.submit("model", FakePayload("running", num_steps=3))
    runner.wait_for_step()
    waiting = [
        engine.submit("model", FakePayload(name), priority=priority)
        for name, priority in zip("ab", Priority, strict=True)
    ]
    engine.refuse_waiting()
    for future in waiting:
        error = future.exception(PATIENCE_S)
        assert isinstance(error, Unavailable)
        assert error.retry_after_s is not None
    assert not running.done()
    late = engine.submit("model", FakePayload("late"))  # a running request's next model is still asked
    runner.open()
    assert (running.result(PATIENCE_S), late.result(PATIENCE_S)) == ("running", "late")
    assert runner.prepared == ["running", "late"]


def test_waiting_requests_share_the_next_step(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(max_rows=4, model=runner)

    futures = [engine.submit("model", FakePayload("first"))]
    runner.wait_for_step()
    futures += [engine.submit("model", FakePayload(name)) for name in "abc"]
    runner.open()
    assert [future.result(PATIENCE_S) for future in futures] == ["first", "a", "b", "c"]
    assert runner.batches == [["first"], ["a", "b", "c"]]


def test_an_idle_device_runs_work_aside_until_it_is_done() -> None:
    seconds = itertools.count(0.0, 10.0)  # every look at the clock is ten seconds later
    engine = Engine(idle_work=IdleWork(lambda: next(seconds)))
    pauses: list[float | None] = [0.0, 3.0, None]
    threads, is_done = [], threading.Event()

    def piece() -> float | None:
        threads.append(threading.current_thread().name)
        if len(pauses) == 1:
            is_done.set()
        return pauses.pop(0)

    engine.start()
    engine.add_idle_work(piece)
    assert is_done.wait(PATIENCE_S)
    engine.close()
    assert threads == ["engine-device"] * 3


def test_requests_go_on_beside_work_aside(start_engine: StartEngine) -> None:
    runner = FakeRunner()
    engine = start_engine(model=runner)
    engine.add_idle_work(lambda: 0.0)
    assert engine.submit("model", FakePayload("image", num_steps=3)).result(PATIENCE_S) == "image"


def test_a_short_request_does_not_wait_for_a_long_one_of_another_model(start_engine: StartEngine) -> None:
    diffusion, clip = FakeRunner(is_gated=True), FakeRunner()
    engine = start_engine(diffusion=diffusion, clip=clip)

    long = engine.submit("diffusion", FakePayload(num_steps=50))
    diffusion.wait_for_step()
    short = engine.submit("clip", FakePayload("short"))
    diffusion.allow(1)
    assert short.result(PATIENCE_S) == "short"
    assert not long.done()


def test_an_interactive_request_overtakes_background_work_at_the_next_step(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(model=runner)

    background = engine.submit("model", FakePayload("background", num_steps=3), priority=Priority.BACKGROUND)
    runner.wait_for_step()
    interactive = engine.submit("model", FakePayload("interactive", num_steps=2))
    runner.open()
    wait([background, interactive], PATIENCE_S)
    names = [name for [name] in runner.batches]
    assert names == ["background", "interactive", "interactive", "background", "background"]
    assert runner.prepared == ["background", "interactive"], "the preempted one kept its state"


@pytest.mark.parametrize("phase", ["prepare", "finish"])
def test_a_failure_before_or_after_the_step_fails_that_request_alone(start_engine: StartEngine, phase: str) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(max_rows=4, model=runner)
    first = engine.submit("model", FakePayload("first"))
    runner.wait_for_step()

    cause = ValueError("a secret")
    bad = engine.submit("model", FakePayload("bad", fails_in=phase, error=cause))
    good = engine.submit("model", FakePayload("good"))
    runner.open()
    error = bad.exception(PATIENCE_S)
    assert isinstance(error, InferenceFailed)
    assert error.__cause__ is cause
    assert "secret" not in error.detail
    assert [first.result(PATIENCE_S), good.result(PATIENCE_S)] == ["first", "good"]


@pytest.mark.parametrize(
    "error", [RuntimeError(), MemoryError(), RecursionError(), SystemExit(1), KeyboardInterrupt(), GeneratorExit()]
)
def test_a_failure_in_the_step_fails_that_batch_alone(start_engine: StartEngine, error: BaseException) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(max_rows=2, model=runner)
    first = engine.submit("model", FakePayload("first"))
    runner.wait_for_step()
    bad = engine.submit("model", FakePayload("bad", fails_in="step", error=error))
    neighbour = engine.submit("model", FakePayload("neighbour"))
    later = engine.submit("model", FakePayload("later"))
    runner.open()

    assert isinstance(bad.exception(PATIENCE_S), InferenceFailed)
    assert isinstance(neighbour.exception(PATIENCE_S), InferenceFailed)
    assert [first.result(PATIENCE_S), later.result(PATIENCE_S)] == ["first", "later"]
    assert engine.is_alive


def submit_behind_a_first_one(
    engine: Engine, runner: FakeRunner, payloads: list[FakePayload], *, cost: RequestCost
) -> "list[Future[object]]":
    """Let them all wait before the next step, so that they share it."""
    engine.submit("model", FakePayload("first"))
    runner.wait_for_step()
    futures = [engine.submit("model", payload, cost=cost) for payload in payloads]
    runner.open()
    return futures


def test_a_step_out_of_memory_is_taken_again_with_fewer_rows(
    start_engine: StartEngine, caplog: pytest.LogCaptureFixture
) -> None:
    runner = FakeRunner(is_gated=True, memory_rows=4)
    engine = start_engine(max_rows=8, model=runner)
    assert engine.notes() == {}

    with caplog.at_level(logging.WARNING):
        futures = submit_behind_a_first_one(
            engine, runner, [FakePayload(name, num_steps=2) for name in "abcd"], cost=RequestCost((4, 4), 2, 2)
        )
        assert [future.result(PATIENCE_S) for future in futures] == ["a", "b", "c", "d"]
    assert runner.prepared == ["first", "a", "b", "c", "d"], "no request lost its state"
    assert runner.batches[1:] == [["a", "b", "c", "d"], ["a", "b"], ["a", "b"], ["c", "d"], ["c", "d"]]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "4 rows of 4x4" in caplog.text
    assert "4 rows of 4x4" in engine.notes()["model"]


def test_rows_are_halved_until_the_step_fits(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True, memory_rows=2)
    engine = start_engine(max_rows=8, model=runner)

    futures = submit_behind_a_first_one(
        engine, runner, [FakePayload(name) for name in "abcd"], cost=RequestCost(rows=2)
    )
    assert [future.result(PATIENCE_S) for future in futures] == ["a", "b", "c", "d"]
    assert [len(names) for names in runner.batches] == [1, 4, 2, 1, 1, 1, 1]


def test_a_request_that_runs_out_of_memory_alone_fails_and_the_next_one_is_served(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True, memory_rows=2)
    engine = start_engine(max_rows=8, model=runner)

    large = engine.submit("model", FakePayload("large"), cost=RequestCost((8, 8), rows=3))
    runner.open()
    error = large.exception(PATIENCE_S)
    assert isinstance(error, InferenceFailed)
    assert "secret" not in error.detail
    small = engine.submit("model", FakePayload("small"), cost=RequestCost((8, 8), rows=2))
    assert small.result(PATIENCE_S) == "small"
    assert engine.notes() == {}, "the model's steps are as large as before"


def test_a_step_of_the_smallest_size_out_of_memory_fails_its_requests(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True, memory_rows=1)
    engine = start_engine(max_rows=8, model=runner)

    futures = submit_behind_a_first_one(engine, runner, [FakePayload(name) for name in "abc"], cost=RequestCost())
    errors = [future.exception(PATIENCE_S) for future in futures]
    assert [type(error) for error in errors] == [InferenceFailed, InferenceFailed, type(None)]
    assert runner.batches == [["first"], ["a", "b", "c"], ["a", "b"], ["c"]]


def test_memory_that_runs_out_before_the_step_fails_that_request_alone(start_engine: StartEngine) -> None:
    runner = FakeRunner()
    engine = start_engine(max_rows=8, model=runner)

    bad = engine.submit("model", FakePayload("bad", fails_in="prepare", error=MemoryError()))
    assert isinstance(bad.exception(PATIENCE_S), InferenceFailed)
    assert engine.submit("model", FakePayload("good")).result(PATIENCE_S) == "good"
    assert engine.notes() == {}


def test_on_step_is_called_after_every_step(start_engine: StartEngine) -> None:
    engine = start_engine(model=FakeRunner())
    calls: list[tuple[int, int]] = []

    future = engine.submit(
        "model",
        FakePayload(num_steps=3),
        cost=RequestCost(steps=3),
        on_step=lambda done, total: calls.append((done, total)),
    )
    future.result(PATIENCE_S)
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("error", [ValueError(), SystemExit()])
def test_an_on_step_that_raises_fails_no_request(
    start_engine: StartEngine, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    engine = start_engine(model=FakeRunner())
    calls: list[int] = []

    def fail(done: int, total: int) -> None:
        calls.append(done)
        raise error

    future = engine.submit("model", FakePayload("image", num_steps=3), on_step=fail)
    assert future.result(PATIENCE_S) == "image"
    assert calls == [1], "it is not called again"
    assert len(caplog.records) == 1
    assert engine.is_alive


def test_a_row_budget_that_is_known_later_counts_from_the_next_step_on(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(max_rows=1, model=runner)
    engine.submit("model", FakePayload("first"))
    runner.wait_for_step()

    futures = [engine.submit("model", FakePayload(name), cost=RequestCost(rows=2)) for name in "abc"]
    engine.set_row_budget("model", lambda _shape: 4)
    runner.open()
    wait(futures, PATIENCE_S)
    assert runner.batches == [["first"], ["a", "b"], ["c"]]


def test_the_expected_wait_of_an_idle_model_is_nothing(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(model=runner)
    assert engine.expected_wait_s("model") == 0

    engine.submit("model", FakePayload(num_steps=9), cost=RequestCost(steps=9))
    runner.wait_for_step()
    assert engine.expected_wait_s("model") > 0


def test_an_app_error_of_a_model_reaches_the_caller_unchanged(start_engine: StartEngine) -> None:
    engine = start_engine(model=FakeRunner())
    invalid = Invalid("Not that many steps.")

    future = engine.submit("model", FakePayload(fails_in="prepare", error=invalid))
    assert future.exception(PATIENCE_S) is invalid


def test_a_cancelled_request_leaves_between_steps(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(model=runner)

    unwanted = engine.submit("model", FakePayload("unwanted", num_steps=1000))
    runner.wait_for_step()
    assert unwanted.cancel(), "a running request can be cancelled"
    wanted = engine.submit("model", FakePayload("wanted"))
    runner.open()
    assert wanted.result(PATIENCE_S) == "wanted"
    assert runner.batches == [["unwanted"], ["wanted"]]
    assert wait([unwanted], PATIENCE_S).done == {unwanted}
    with pytest.raises(CancelledError):
        unwanted.result()


def test_a_request_cancelled_in_its_last_step_stays_cancelled(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(model=runner)

    unwanted = engine.submit("model", FakePayload("unwanted"))
    runner.wait_for_step()
    unwanted.cancel()
    runner.open()
    assert engine.submit("model", FakePayload("next")).result(PATIENCE_S) == "next"
    assert unwanted.cancelled()


def submit_with_a_separate_finish(
    engine: Engine, name: str, num_steps: int = 1, priority: Priority = Priority.INTERACTIVE, **fails: Any
) -> "Future[object]":
    payload = FakePayload(name, num_steps=num_steps, **fails)
    return engine.submit(
        "model", payload, priority=priority, cost=RequestCost(steps=num_steps, finishes_separately=True)
    )


def test_between_two_steps_one_request_is_finished_and_without_steps_all_are(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(max_rows=8, model=runner)
    engine.submit("model", FakePayload("gate"))
    runner.wait_for_step()

    futures = [submit_with_a_separate_finish(engine, name) for name in "abcd"]
    futures.append(submit_with_a_separate_finish(engine, "long", num_steps=3))
    runner.open()
    assert [future.result(PATIENCE_S) for future in futures] == ["a", "b", "c", "d", "long"]
    assert runner.turns[2:] == [["a", "b", "c", "d", "long"], "a", ["long"], "b", ["long"], "c", "d", "long"]


def test_a_failure_in_a_separate_finish_fails_that_request_alone(start_engine: StartEngine) -> None:
    engine = start_engine(max_rows=8, model=FakeRunner())

    bad = submit_with_a_separate_finish(engine, "bad", fails_in="finish", error=MemoryError("a secret"))
    assert isinstance(bad.exception(PATIENCE_S), InferenceFailed)
    assert submit_with_a_separate_finish(engine, "good").result(PATIENCE_S) == "good"
    assert engine.notes() == {}, "no step ran out of memory"


def test_a_request_cancelled_before_it_is_finished_is_dropped(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(max_rows=8, model=runner)
    engine.submit("model", FakePayload("gate"))
    runner.wait_for_step()
    wanted = submit_with_a_separate_finish(engine, "wanted")
    unwanted = submit_with_a_separate_finish(engine, "unwanted")
    long = submit_with_a_separate_finish(engine, "long", num_steps=3)
    runner.allow(2)  # the gate, and the step after which both are to be finished
    for _ in range(2):
        runner.wait_for_step()
    assert wanted.result(PATIENCE_S) == "wanted"
    assert engine.in_flight()["model"] == 2, "one waits to be finished, one runs"
    assert unwanted.cancel()
    runner.open()

    assert long.result(PATIENCE_S) == "long"
    assert wait([unwanted], PATIENCE_S).done == {unwanted}
    assert "unwanted" not in runner.turns


def test_closing_fails_requests_that_wait_to_be_finished(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(max_rows=8, model=runner)
    engine.submit("model", FakePayload("gate"))
    runner.wait_for_step()
    futures = [submit_with_a_separate_finish(engine, name) for name in "ab"]
    long = submit_with_a_separate_finish(engine, "long", num_steps=1000)
    runner.allow(2)
    for _ in range(2):
        runner.wait_for_step()

    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(Unavailable):
        submit_for_ever(engine)
    runner.allow(1)
    closing.join(PATIENCE_S)
    assert [type(future.exception(PATIENCE_S)) for future in [*futures, long]] == [type(None), Unavailable, Unavailable]
    assert set(engine.in_flight().values()) == {0}


def test_a_full_queue_refuses_at_once(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(max_queue_size=1, model=runner)
    engine.submit("model", FakePayload("running"))
    runner.wait_for_step()
    engine.submit("model", FakePayload("waiting"))
    assert engine.in_flight()["model"] == 2

    with pytest.raises(QueueFull) as caught:
        engine.submit("model", FakePayload("too many"))
    assert caught.value.retry_after_s
    assert caught.value.retry_after_s >= 1


def test_models_load_one_after_the_other_in_the_order_they_were_added() -> None:
    order: list[str] = []
    may_load, is_done = threading.Event(), threading.Event()

    def load(name: str) -> Runner:
        assert may_load.wait(PATIENCE_S)
        order.append(name)
        if name == "third":
            is_done.set()
        return FakeRunner()

    engine = Engine()
    for name in ("first", "second", "third"):
        engine.add_model(name, lambda name=name: load(name))  # type: ignore[misc]
    engine.start()
    assert {status.state for status in engine.status().values()} == {"loading"}
    with pytest.raises(ModelNotReady) as caught:
        engine.submit("first", FakePayload())
    assert caught.value.retry_after_s

    may_load.set()
    assert is_done.wait(PATIENCE_S)
    engine.close()
    assert order == ["first", "second", "third"]
    assert {status.state for status in engine.status().values()} == {"ready"}
    assert engine.status()["first"].loaded_s is not None


class LoadingError(Exception):
    """Carries a text for people, as PackError does."""

    detail = "unet.safetensors is missing. Run `foxhound models fetch sd15`."


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (LoadingError("internal"), LoadingError.detail),
        (OSError("/a/path/of/this/machine"), "The model could not be loaded. See the log of the service."),
        (SystemExit(3), "The model could not be loaded. See the log of the service."),
    ],
)
def test_a_model_that_cannot_be_loaded_has_a_detail_and_the_others_serve(error: BaseException, detail: str) -> None:
    def fail() -> Runner:
        raise error

    is_loaded = threading.Event()
    engine = Engine()
    engine.add_model("broken", fail)
    engine.add_model("whole", FakeRunner)
    engine.add_model("last", lambda: signal_loaded(is_loaded))
    engine.start()
    try:
        assert is_loaded.wait(PATIENCE_S)
        assert engine.status()["broken"].state == "failed"
        assert engine.status()["broken"].detail == detail
        with pytest.raises(ModelNotReady):
            engine.submit("broken", FakePayload())
        assert engine.submit("whole", FakePayload("served")).result(PATIENCE_S) == "served"
    finally:
        engine.close()


def test_an_unknown_model_is_not_ready(start_engine: StartEngine) -> None:
    with pytest.raises(ModelNotReady):
        start_engine(model=FakeRunner()).submit("another", FakePayload())


def test_closing_fails_waiting_and_running_requests(start_engine: StartEngine) -> None:
    runner = FakeRunner(is_gated=True)
    engine = start_engine(model=runner)
    running = engine.submit("model", FakePayload("running", num_steps=1000))
    runner.wait_for_step()
    waiting = engine.submit("model", FakePayload("waiting"))

    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(Unavailable):
        submit_for_ever(engine)  # until it has begun to close
    runner.allow(1)  # the step it is in
    closing.join(PATIENCE_S)
    assert not closing.is_alive()
    assert isinstance(running.exception(PATIENCE_S), Unavailable)
    assert isinstance(waiting.exception(PATIENCE_S), Unavailable)
    assert runner.batches == [["running"]], "no step after that one"
    assert not engine.is_alive
    with pytest.raises(Unavailable):
        engine.submit("model", FakePayload())
    engine.close()


def submit_for_ever(engine: Engine) -> None:
    while True:
        engine.submit("last", FakePayload()).cancel()


def test_closing_an_engine_that_was_never_started_is_harmless() -> None:
    engine = Engine()
    engine.add_model("model", FakeRunner)
    engine.close()
    assert not engine.is_alive


class BrokenBatcher(Batcher):
    """Raises once `is_broken`, like a bug of the engine."""

    is_broken = False

    def next_batch(self) -> Batch | None:
        if self.is_broken:
            raise ZeroDivisionError
        return super().next_batch()


def test_a_device_thread_that_ended_fails_all_futures() -> None:
    batcher, runner = BrokenBatcher(max_queue_size=8), FakeRunner(is_gated=True)
    is_loaded = threading.Event()
    engine = Engine(batcher=batcher)
    engine.add_model("model", lambda: runner)
    engine.add_model("last", lambda: signal_loaded(is_loaded))
    engine.start()
    assert is_loaded.wait(PATIENCE_S)
    running = engine.submit("model", FakePayload("running", num_steps=9))
    runner.wait_for_step()
    waiting = engine.submit("model", FakePayload("waiting"))
    background = engine.submit("model", FakePayload("waiting too"), priority=Priority.BACKGROUND)
    was_alive = engine.is_alive  # mypy takes an asserted property for true from then on
    assert was_alive

    batcher.is_broken = True
    runner.open()
    for future in (running, waiting, background):
        assert isinstance(future.exception(PATIENCE_S), Unavailable)
    assert not engine.is_alive
    with pytest.raises(Unavailable):
        engine.submit("model", FakePayload())
    engine.close()
