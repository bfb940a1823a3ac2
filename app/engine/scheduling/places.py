"""How callers share the waiting places of a bounded queue. A pure function, any thread."""

from collections.abc import Mapping


def has_place(waiting: Mapping[str, int], caller: str, max_waiting: int) -> bool:
    """Return whether one more may wait: there are places left, or its caller has less than an even share of them.

    A caller that waits alone may take all places. Those that come then have as many places again, so that no caller
    can keep others out; a queue never has more than twice `max_waiting`.

    Args:
        waiting: How many wait by caller, >= 0 each.
        caller: Who asks.
        max_waiting: The places, >= 1.
    """
    total = sum(waiting.values())
    if total < max_waiting:
        return True
    num_callers = sum(num > 0 for other, num in waiting.items() if other != caller) + 1
    share = max(1, max_waiting // num_callers)
    return waiting.get(caller, 0) < share and total < 2 * max_waiting
