"""How tests wait: as long as what they look at changes, however slow the machine is."""

import time
from collections.abc import Callable
from typing import TypeVar

Seen = TypeVar("Seen")

# How long nothing may change before a wait fails, in seconds. Far above what anything here needs on an idle machine;
# reached only when a test fails. Waits for a single event, in which nothing can be seen to change, take it as it is.
PATIENCE_S = 120.0


def wait_for(
    read: Callable[[], Seen],
    is_there: Callable[[Seen], bool],
    *,
    patience_s: float = PATIENCE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Seen:
    """Read again and again until what is read is what is waited for, and return it.

    Args:
        read: Looks; what it returns should hold whatever tells that the work goes on.
        is_there: Tells whether that is it.
        patience_s: Seconds after which the wait fails unless something changed meanwhile.
        clock: Tells the time in seconds.
        sleep: Waits between two looks.
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
    """Wait until something is so; where its way there can be seen, `wait_for` is the better one."""
    wait_for(lambda: bool(is_so()), bool, patience_s=patience_s)
