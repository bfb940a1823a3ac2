"""Ways of doing one thing, timed by turns, so that other load on the machine hits all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median, quantiles


@dataclass(frozen=True)
class Ratio:
    """How long a way takes beside the first one, over the rounds.

    Attributes:
        seconds: The median of the way itself.
        ratio: The median of the rounds' ratios.
        low: The lower quartile of the ratios.
        high: The upper quartile.
    """

    seconds: float
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Rounds:
    """How often ways are timed, and by what.

    Attributes:
        number: 2 or more.
        clock: Returns seconds.
    """

    number: int
    clock: Callable[[], float] = time.perf_counter


def by_turns(ways: Mapping[str, Callable[[], object]], rounds: Rounds) -> dict[str, Ratio]:
    """Time each way once a round, in an order that turns; one more round in front does not count.

    Args:
        ways: By name; the first is what the others are compared with.
        rounds: How often.
    """
    names = list(ways)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for index in range(-1, rounds.number):
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            began = rounds.clock()
            ways[name]()
            if index >= 0:
                taken[name].append(rounds.clock() - began)
    return {name: ratio_of(taken[name], taken[names[0]]) for name in names}


def ratio_of(taken: list[float], base: list[float]) -> Ratio:
    """Compare the rounds of two ways one by one."""
    ratios = [own / other for own, other in zip(taken, base, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return Ratio(median(taken), median(ratios), low, high)
