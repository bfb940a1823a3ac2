"""Waiting in tests: until a condition holds, as long as the observed state changes, however slow the machine is."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

# Seconds without a change after which a wait fails: far more than any step needs on an idle machine, so only failing
# tests reach it. Waits for a single event, which show no changes, use it as their timeout.
PATIENCE_S = 120.0


def wait_for(
    read: Callable[[], Seen],
    is_there: Callable[[Seen], bool],
    *,
    patience_s: float = PATIENCE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Seen:
    """Poll until a condition holds, and return the state for which it does.

    Args:
        read: Returns the state; it should contain whatever shows progress.
        is_there: Returns whether the condition holds for a state.
        patience_s: Seconds without a change of the state after which the wait fails.
        clock: Returns the time in seconds.
        sleep: Waits between two polls.
    """
    seen, deadline = read(), clock() + patience_s
    while not is_there(seen):
        assert clock() < deadline, f"nothing changed for {patience_s:g} s: {seen}"
        sleep(0.02)
        before, seen = seen, read()
        if seen != before:
            deadline = clock() + patience_s
    return seen


def wait_until(is_so: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Poll until a condition holds; prefer `wait_for` where the state shows progress."""
    wait_for(lambda: bool(is_so()), bool, patience_s=patience_s)
