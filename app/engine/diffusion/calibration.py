"""Measures the cost of a forward by its number of rows, and tests for which numbers rows are batch-invariant.

One probe for each size of latents: the same forwards answer both questions. Handles no requests. Runs on the loader
thread for the native size, on the device thread for others.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import torch

from app.engine.diffusion.options import ANY_ROWS, RowPadding
from app.engine.kernels.host_cores import seconds_without_core
from app.engine.request import MIN_ROWS

# A forward whose threads waited for a core for a larger part of its time is disturbed. Other processes were measured to
# take none, or more than a third (docs/decisions/0084).
DISTURBED_SHARE = 0.1

# Forwards of one number of rows until one of them is not disturbed.
MAX_TRIES = 3

# They end earlier once all forwards so far took this part of the time limit: other numbers of rows are worth more.
TRIES_SHARE = 0.25

# A disturbed measurement gets so much more time.
BUSY_TIME = 2.0

# The line through the timings is right while at most so many of them are disturbed.
MAX_DISTURBED_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of a probe.

    Attributes:
        seconds: Of one forward, by the number of requested rows, >= 1; includes the padding.
        padding: How rows are distributed over forwards.
        is_invariant: Whether no row's result changed with its position or with the other rows; False where batch
            invariance is not required.
        is_disturbed: Whether other processes took the cores of so many forwards that `seconds` says nothing.
    """

    seconds: dict[int, float]
    padding: RowPadding
    is_invariant: bool
    is_disturbed: bool = False


@dataclass(frozen=True, slots=True)
class Meter:
    """What a forward is measured with.

    Attributes:
        clock: Returns seconds.
        without_core: Returns the seconds so far that threads of this process were ready to run and had no core.
    """

    clock: Callable[[], float] = time.perf_counter
    without_core: Callable[[], float] = seconds_without_core


@dataclass(slots=True)
class _Timing:
    seconds: float
    is_disturbed: bool


class Probe:
    """Runs forwards of more and more rows until the time limit or the memory is reached, one number at a time.

    Numbers of rows at which a row's result is another than at the first number are not used. So the results are those
    of the first number however many others were tried in time: a busy machine draws the bytes of an idle one.

    Where already the first number is disturbed, the seconds of the others will say nothing: they are run once, without
    warm-up.
    """

    def __init__(
        self,
        forward: Callable[[int], torch.Tensor],
        time_limit_s: float,
        meter: Meter | None = None,
        *,
        sizes: Sequence[int] = ANY_ROWS,
        must_match: bool = True,
        warms_up: bool = False,
        max_tries: int = MAX_TRIES,
    ) -> None:
        """Run nothing yet.

        Args:
            forward: Runs a forward of the given number of rows, of which the first and the last are always the same,
                waits for the device, and returns the results of these two.
            time_limit_s: No further number of rows is tried after this many seconds of timed forwards; one is always.
                `BUSY_TIME` times as many where already the first number is disturbed.
            meter: Measures forwards; default: the machine's.
            sizes: The numbers of rows to try, ascending.
            must_match: Whether a row's result must be the same bytes whatever the number of rows.
            warms_up: Whether each number of rows is run once before it is timed: its first forward creates kernels, on
                the CPU too (oneDNN), which can double its time.
            max_tries: Timed forwards of one number until one is not disturbed, >= 1.
        """
        self._max_tries = max_tries
        self._forward = forward
        self._time_limit_s = time_limit_s
        self._meter = meter or Meter()
        self._sizes = sizes
        self._must_match = must_match
        self._warms_up = warms_up
        self._timings: dict[int, _Timing] = {}
        self._spent_s = 0.0
        self._is_invariant = must_match
        self._begins_disturbed = False
        self._forwards = self._run()

    @property
    def is_disturbed(self) -> bool:
        """Whether the timings so far say nothing."""
        num_disturbed = sum(timing.is_disturbed for timing in self._timings.values())
        return self._begins_disturbed or num_disturbed > MAX_DISTURBED_SHARE * len(self._timings)

    def advance(self) -> bool:
        """Run the next forward; return False if there is none."""
        return next(self._forwards, False)

    def complete(self) -> Calibration:
        """Run all forwards, without a stop."""
        while self.advance():
            pass
        return self.result()

    def result(self) -> Calibration:
        """Conclude from the numbers that were tried, at least one."""
        is_disturbed = self.is_disturbed
        timed = {rows: one.seconds for rows, one in self._timings.items() if is_disturbed or not one.is_disturbed}
        return _conclude(sorted(self._timings), timed, is_invariant=self._is_invariant, is_disturbed=is_disturbed)

    def _run(self) -> Iterator[bool]:
        """Yield True after each forward."""
        alone = self._forward(self._sizes[0])  # not timed: the first forward also initializes the device
        self._is_invariant = self._must_match and torch.equal(alone[0], alone[1])
        yield True
        left = list(self._sizes)
        while left and self._spent_s <= self._time_limit_s:
            rows = left.pop(0)
            try:
                if self._warms_up and self._timings and not self._begins_disturbed:
                    self._forward(rows)
                    yield True
                yield from self._try(rows, alone)
            except torch.OutOfMemoryError:
                if not self._timings:
                    raise
                left = [fewer for fewer in left if fewer < rows]
            if rows == self._sizes[0] and self.is_disturbed:
                self._begins_disturbed = True
                self._time_limit_s *= BUSY_TIME
                left = _doubling_first(left, rows)

    def _try(self, rows: int, alone: torch.Tensor) -> Iterator[bool]:
        """Time forwards of one number of rows until one is not disturbed; keep the last or the fastest."""
        kept: _Timing | None = None
        for _ in range(1 if self._begins_disturbed else self._max_tries):
            timing, result = self._time(rows)
            kept = timing if kept is None or not timing.is_disturbed else min(kept, timing, key=lambda one: one.seconds)
            matches = not self._must_match or torch.equal(result, alone)
            if not matches and (self._timings.keys() - {rows}):
                yield True
                return
            self._timings[rows] = kept
            self._is_invariant = self._is_invariant and matches
            yield True
            if not kept.is_disturbed or self._spent_s > TRIES_SHARE * self._time_limit_s:
                return

    def _time(self, rows: int) -> tuple[_Timing, torch.Tensor]:
        began_s, waited_s = self._meter.clock(), self._meter.without_core()
        result = self._forward(rows)
        took_s = self._meter.clock() - began_s
        self._spent_s += took_s
        return _Timing(took_s, self._meter.without_core() - waited_s > DISTURBED_SHARE * took_s), result


def still_holds(forward: Callable[[int], torch.Tensor], known: Calibration) -> bool:
    """Test an earlier calibration's batch invariance again, with two forwards instead of many.

    Args:
        forward: As for `Probe`.
        known: A calibration of this model on this device.
    """
    fewest, most = known.padding.sizes[0], known.padding.most
    if not known.is_invariant or fewest == most:
        return True  # there is no invariance to test, or only one number of rows
    return torch.equal(forward(fewest), forward(most))


def _doubling_first(sizes: Sequence[int], first: int) -> list[int]:
    """Return the numbers with two, four, eight ... times the first rows before the others.

    Where there is time for few numbers and their seconds say nothing, it is worth most that many rows are allowed.
    """
    powers = {first * 2**power for power in range(8)}
    return sorted(sizes, key=lambda rows: (rows not in powers, rows))


def _conclude(
    sizes: Sequence[int], timed: Mapping[int, float], *, is_invariant: bool, is_disturbed: bool
) -> Calibration:
    """Allow the numbers of rows that were tried; rows in between cost as much as the next allowed number."""
    padding = RowPadding(tuple(sizes))
    line = _fit_line(timed)
    seconds = {rows: line(padding.size(rows)) for rows in range(MIN_ROWS, padding.most + 1)}
    return Calibration(seconds, padding, is_invariant, is_disturbed)


def _fit_line(measured: Mapping[int, float]) -> Callable[[int], float]:
    """Fit a line through the measured seconds by numbers of rows.

    Each number of rows is measured once, while other programs run, and some forwards take three times as long. A
    forward costs a constant and an amount per row: close to a line on CPU and GPU (docs/decisions/0015). The line is
    the median one, which a quarter of outliers does not change.

    Source:
        Theil-Sen: Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
    """
    points = list(measured.items())
    if len(points) == 1:
        [(only_rows, only_s)] = points
        return lambda rows: only_s * max(1.0, rows / only_rows)
    per_row_s = max(0.0, median((b_s - a_s) / (b - a) for (a, a_s), (b, b_s) in combinations(points, 2)))
    constant_s = max(0.0, median(took_s - per_row_s * rows for rows, took_s in points))
    return lambda rows: constant_s + per_row_s * rows
