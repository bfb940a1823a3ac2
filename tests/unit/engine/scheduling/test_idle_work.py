"""Tests of `app.engine.scheduling.idle_work`, with a clock that tests move on."""

import logging
from collections.abc import Callable

import pytest

from app.engine.scheduling.idle_work import IDLE_S, MAX_DELAY_S, IdleWork


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Piece:
    """Returns the pauses that it was given, in order."""

    def __init__(self, *pauses: float | None) -> None:
        self.pauses = list(pauses)

    def __call__(self) -> float | None:
        return self.pauses.pop(0)


def run(piece: Callable[[], None] | None) -> bool:
    if piece is not None:
        piece()
    return piece is not None


def test_a_piece_waits_until_the_device_has_been_idle_for_a_while() -> None:
    clock = Clock()
    work, piece = IdleWork(clock), Piece(0.0, 5.0, None)
    assert work.wait_s() is None
    work.add(piece)
    assert not run(work.take(is_idle=False))
    clock.now += IDLE_S / 2
    assert not run(work.take(is_idle=True))
    assert work.wait_s() == pytest.approx(IDLE_S / 2)
    clock.now += IDLE_S / 2
    assert run(work.take(is_idle=True))
    assert work.wait_s() == 0.0, "the next one follows at once"
    assert not run(work.take(is_idle=False)), "a request goes first"
    clock.now += IDLE_S
    assert run(work.take(is_idle=True))
    assert work.wait_s() == pytest.approx(5.0)
    clock.now += 5.0
    assert run(work.take(is_idle=True))
    assert work.wait_s() is None


def test_a_device_that_is_never_idle_runs_a_piece_from_time_to_time() -> None:
    clock = Clock()
    work, piece = IdleWork(clock), Piece(*[0.0] * 3, None)
    work.add(piece)
    ran = 0
    for _ in range(int(2 * MAX_DELAY_S) + 1):
        ran += run(work.take(is_idle=False))
        clock.now += 1.0
    assert ran == 2


def test_work_that_fails_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    work = IdleWork(clock)

    def fail() -> float:
        raise OSError("broken")

    work.add(fail)
    clock.now += IDLE_S
    with caplog.at_level(logging.ERROR):
        assert run(work.take(is_idle=True))
    assert "given up" in caplog.text
    assert work.wait_s() is None
