"""The tests' own waiting: progress keeps it up, standstill ends it."""

from collections.abc import Iterator

import pytest

from testing.waiting import wait_for


class Clock:
    """Moves on by ten seconds with every wait."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += 10


def readings(clock: Clock, *, seconds_each: float, last: int) -> Iterator[int]:
    """Count up by one every so many seconds, and then stand still."""
    while True:
        yield min(int(clock.now / seconds_each), last)


def test_what_goes_on_is_waited_for_however_long_it_takes() -> None:
    clock = Clock()
    made = readings(clock, seconds_each=50, last=10_000)
    assert wait_for(lambda: next(made), lambda done: done >= 24, patience_s=60, clock=clock, sleep=clock.sleep) == 24
    assert clock.now >= 24 * 50


def test_what_stands_still_is_given_up_with_what_was_seen_last() -> None:
    clock = Clock()
    made = readings(clock, seconds_each=50, last=24)
    with pytest.raises(AssertionError, match="nothing changed for 60 s: 24"):
        wait_for(lambda: next(made), lambda done: done >= 28, patience_s=60, clock=clock, sleep=clock.sleep)
    assert clock.now <= 24 * 50 + 60 + 20
