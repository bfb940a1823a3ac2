"""Fakes of the engine's collaborators, which tests inject."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from app.engine.request import EngineRequest
from testing.waiting import PATIENCE_S


@dataclass(frozen=True)
class FakePayload:
    """A request to `FakeRunner`: a number of steps, and an error to raise in one of its phases."""

    name: str = "request"
    num_steps: int = 1
    fails_in: str = ""
    error: BaseException | None = None


class OutOfMemoryError(RuntimeError):
    """Called as torch's is."""


class FakeRunner:
    """A model without weights: counts steps, fails on demand, and can wait for a permit before every step.

    With `memory_rows` a step of more rows runs out of memory and leaves the states untouched.

    Attributes:
        batches: The names of the payloads of every step taken, in order.
        prepared: The names of the payloads prepared, in order.
        turns: Of every step its names, of every request finished its name, in order.
    """

    def __init__(self, *, is_gated: bool = False, memory_rows: int | None = None) -> None:
        self.batches: list[list[str]] = []
        self.prepared: list[str] = []
        self.turns: list[list[str] | str] = []
        self._is_gated = is_gated
        self._memory_rows = memory_rows
        self._permits = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)

    def allow(self, num_steps: int = 1) -> None:
        """Permit a gated runner this number of steps."""
        self._permits.release(num_steps)

    def open(self) -> None:
        """Permit a gated runner any number of steps."""
        self._is_gated = False
        self._permits.release()

    def wait_for_step(self) -> None:
        """Wait until the next step has begun; each step counts once."""
        assert self._entered.acquire(timeout=PATIENCE_S), "no step began"

    def prepare(self, request: EngineRequest) -> None:
        payload = _payload(request)
        self.prepared.append(payload.name)
        request.state = 0
        _fail_in("prepare", [request])

    def step(self, requests: Sequence[EngineRequest]) -> None:
        self.batches.append([_payload(request).name for request in requests])
        self.turns.append(self.batches[-1])
        self._entered.release()
        if self._is_gated:
            assert self._permits.acquire(timeout=PATIENCE_S), "no permit came"
        _fail_in("step", requests)
        if self._memory_rows is not None and sum(request.cost.rows for request in requests) > self._memory_rows:
            raise OutOfMemoryError("a secret of the device")
        for request in requests:
            request.state += 1

    def is_finished(self, request: EngineRequest) -> bool:
        return bool(request.state >= _payload(request).num_steps)

    def finish(self, request: EngineRequest) -> str:
        self.turns.append(_payload(request).name)
        _fail_in("finish", [request])
        return _payload(request).name


def _payload(request: EngineRequest) -> FakePayload:
    assert isinstance(request.payload, FakePayload)
    return request.payload


def _fail_in(phase: str, requests: Sequence[EngineRequest]) -> None:
    for request in requests:
        payload = _payload(request)
        if payload.fails_in == phase and payload.error is not None:
            raise payload.error
