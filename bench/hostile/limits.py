"""What an attack may do to others, and what of it was exceeded: functions over what was seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

MAX_P95_RATIO = 1.5
# What the allocator keeps of a peak, and models of what they have seen; in bytes.
MEMORY_MARGIN = 128 * 2**20


@dataclass(frozen=True, slots=True)
class Result:
    """One attack and what a good client had of it; times in milliseconds, memory of the API process in bytes.

    Attributes:
        outcomes: How the attack was answered: status, or how it ended without one, to number.
        faults: What the good client was answered otherwise than 200 meanwhile, in words.
        next_is_good: Whether each request of the mix was answered 200 right after the attack.
    """

    attack: str
    idle_p95_ms: float
    p95_ms: float
    idle_pause_ms: float
    pause_ms: float
    memory_before: int
    memory_after: int
    next_is_good: bool
    outcomes: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """How much longer the good client waited, at the 95th percentile."""
        return self.p95_ms / self.idle_p95_ms

    def missed(self) -> list[str]:
        """Tell in words what was exceeded; nothing when all held."""
        grown = self.memory_after - self.memory_before
        found = {
            f"p95 {self.ratio:.2f} x idle": self.ratio > MAX_P95_RATIO,
            f"memory stayed {grown / 2**20:.0f} MiB higher": grown > MEMORY_MARGIN,
            f"{len(self.faults)} good requests were refused, such as {self.faults[:1]}": bool(self.faults),
            "the next good request failed": not self.next_is_good,
        }
        return [words for words, is_missed in found.items() if is_missed]


def judged(attempt: Callable[[], Result]) -> Result:
    """Return the result of an attempt, or the middle one of three where the first misses a target."""
    first = attempt()
    return sorted([first, attempt(), attempt()], key=_severity)[1] if first.missed() else first


def _severity(result: Result) -> tuple[bool, float]:
    return bool(result.missed()), result.ratio


HEADS = ("attack", "p95 idle, ms", "p95 attacked, ms", "ratio", "pause idle, ms", "pause attacked, ms", "MiB", "missed")


def table(results: list[Result]) -> str:
    """Lay the results out as Markdown."""
    lines = [f"| {' | '.join(HEADS)} |", "| --- |" + " --- |" * (len(HEADS) - 1)]
    for one in results:
        memory = f"{one.memory_before / 2**20:.0f} -> {one.memory_after / 2**20:.0f}"
        figures = (one.idle_p95_ms, one.p95_ms, one.idle_pause_ms, one.pause_ms)
        idle, attacked, idle_pause, pause = (f"{figure:.0f}" for figure in figures)
        cells = (one.attack, idle, attacked, f"{one.ratio:.2f} x", idle_pause, pause, memory, "; ".join(one.missed()))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(result: Result) -> dict[str, Any]:
    """Return a result as plain values."""
    return {**asdict(result), "ratio": round(result.ratio, 3), "missed": result.missed()}
