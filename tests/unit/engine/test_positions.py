"""How many requests go before a waiting one, as callers share the engine."""

from app.engine.engine import Engine
from app.engine.positions import QueuePositions
from app.engine.request import EngineRequest, Priority
from testing.fakes import FakePayload, FakeRunner
from testing.waiting import PATIENCE_S, wait_until


def request(caller: str = "a", *, model: str = "draw", priority: Priority = Priority.INTERACTIVE) -> EngineRequest:
    return EngineRequest(model, None, priority=priority, caller=caller)


def followed(positions: QueuePositions, waiting: EngineRequest) -> list[int]:
    told: list[int] = []
    positions.follow(waiting.future, told.append)
    return told


def submit(positions: QueuePositions, *requests: EngineRequest) -> None:
    for one in requests:
        positions.submitted(one)


def test_positions_count_down_as_requests_end() -> None:
    positions, requests = QueuePositions("draw"), [request() for _ in range(4)]
    submit(positions, *requests)
    told = [followed(positions, one) for one in requests]
    assert told == [[], [1], [2], [3]]
    positions.admitted(requests[0])  # it still goes before the others
    requests[0].resolve("image")
    requests[2].future.cancel()
    requests[1].fail(ValueError())
    assert told == [[], [1, 0], [2, 1], [3, 2, 1, 0]]


def test_other_callers_and_other_work_count_as_far_as_they_go_first() -> None:
    positions = QueuePositions("draw")
    many = [request("many") for _ in range(5)]
    first, second = request("few"), request("few")
    submit(positions, *many, request(model="clip"), request(priority=Priority.BACKGROUND), first, second)
    told = followed(positions, first), followed(positions, second)
    assert told == ([1], [3])  # one of the five in each turn of the caller's own
    for one in many[:4]:
        one.resolve("image")
    assert told == ([1], [3, 2])


def test_what_has_begun_or_ended_is_told_nothing() -> None:
    positions, begun, ended = QueuePositions("draw"), request(), request()
    submit(positions, request(), begun, ended)
    begun.started_at = 1.0
    ended.resolve("image")
    told = followed(positions, begun), followed(positions, ended)
    waiting = request()
    submit(positions, waiting)
    told_waiting = followed(positions, waiting)
    positions.admitted(waiting)
    begun.resolve("image")
    assert (told, told_waiting) == (([], []), [2])


def test_an_engine_tells_its_followers() -> None:
    runner, positions, engine = FakeRunner(is_gated=True), QueuePositions("draw"), Engine()
    engine.add_model("draw", lambda: runner)
    engine.observe(positions)
    engine.start()
    try:
        wait_until(lambda: engine.status()["draw"].state == "ready")
        futures = [engine.submit("draw", FakePayload(str(number))) for number in range(3)]
        told: list[int] = []
        positions.follow(futures[2], told.append)
        runner.open()
        for future in futures:
            future.result(PATIENCE_S)
        assert told == [2, 1, 0]
    finally:
        engine.close()
