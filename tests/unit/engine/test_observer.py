"""What an engine reports to its observers, and that none of them can harm it."""

import threading
from collections.abc import Iterator, Sequence

import pytest

from app.engine.engine import Engine
from app.engine.observer import StepTaken
from app.engine.request import EngineRequest, Priority, RequestCost
from testing.fakes import FakePayload, FakeRunner
from testing.waiting import PATIENCE_S, wait_until


class CountingObserver:
    """Keeps what an engine reports."""

    def __init__(self) -> None:
        self.submitted_names: list[str] = []
        self.admitted_names: list[str] = []
        self.steps: list[StepTaken] = []
        self.finished_names: list[str] = []

    def submitted(self, request: EngineRequest) -> None:
        self.submitted_names.append(_name(request))

    def admitted(self, request: EngineRequest) -> None:
        self.admitted_names.append(_name(request))

    def stepped(self, step: StepTaken) -> None:
        self.steps.append(step)

    def finished(self, request: EngineRequest, seconds: float) -> None:
        assert seconds >= 0
        self.finished_names.append(_name(request))


class Faulty(CountingObserver):
    def stepped(self, step: StepTaken) -> None:
        super().stepped(step)
        raise RuntimeError


class Padding(FakeRunner):
    """Pads every forward to eight rows."""

    def step(self, requests: Sequence[EngineRequest]) -> int:  # type: ignore[override]
        super().step(requests)
        return 8 - sum(request.cost.rows for request in requests)


def _name(request: EngineRequest) -> str:
    assert isinstance(request.payload, FakePayload)
    return request.payload.name


@pytest.fixture
def runner() -> FakeRunner:
    return Padding(is_gated=True)


@pytest.fixture
def engine(runner: FakeRunner) -> Iterator[Engine]:
    engine = Engine()
    is_loaded = threading.Event()

    def load() -> FakeRunner:
        is_loaded.set()
        return runner

    engine.add_model("model", load, max_rows=8)
    engine.start()
    assert is_loaded.wait(PATIENCE_S)
    wait_until(lambda: engine.status()["model"].state == "ready")
    yield engine
    runner.open()
    engine.close()


def submit(engine: Engine, name: str, *, steps: int = 1, priority: Priority = Priority.INTERACTIVE):
    cost = RequestCost(rows=2, steps=steps, finishes_separately=True)
    return engine.submit("model", FakePayload(name, num_steps=steps), priority=priority, cost=cost)


def test_each_step_is_reported_with_its_rows_and_its_padding(engine: Engine, runner: FakeRunner) -> None:
    observer = CountingObserver()
    engine.observe(observer)
    first = submit(engine, "first", steps=2)
    runner.wait_for_step()
    second = submit(engine, "second")
    runner.open()
    assert (first.result(PATIENCE_S), second.result(PATIENCE_S)) == ("first", "second")
    wait_until(lambda: len(observer.finished_names) == 2)
    assert [(step.model, step.rows, step.padding) for step in observer.steps] == [("model", 2, 6), ("model", 4, 4)]
    assert all(step.seconds > 0 for step in observer.steps)
    assert observer.submitted_names == observer.admitted_names == ["first", "second"]
    assert sorted(observer.finished_names) == ["first", "second"]


def test_a_step_that_failed_is_not_reported(engine: Engine, runner: FakeRunner) -> None:
    observer = CountingObserver()
    engine.observe(observer)
    runner.open()
    failing = engine.submit("model", FakePayload("failing", fails_in="step", error=ValueError()))
    assert failing.exception(PATIENCE_S) is not None
    assert submit(engine, "good").result(PATIENCE_S) == "good"
    assert [step.rows for step in observer.steps] == [2]


def test_an_observer_that_fails_is_removed_and_the_engine_goes_on(engine: Engine, runner: FakeRunner) -> None:
    faulty, sound = Faulty(), CountingObserver()
    engine.observe(faulty)
    engine.observe(sound)
    runner.open()
    assert submit(engine, "image", steps=3).result(PATIENCE_S) == "image"
    assert (len(faulty.steps), len(sound.steps)) == (1, 3)


def test_waiting_requests_are_listed_by_priority_with_their_age(engine: Engine, runner: FakeRunner) -> None:
    assert engine.waiting() == []
    submit(engine, "running")
    runner.wait_for_step()
    for number in range(3):
        submit(engine, f"waiting {number}", priority=Priority.BACKGROUND)
    [waiting] = engine.waiting()
    assert (waiting.model, waiting.priority, waiting.number) == ("model", Priority.BACKGROUND, 3)
    assert 0 <= waiting.oldest_s < PATIENCE_S
