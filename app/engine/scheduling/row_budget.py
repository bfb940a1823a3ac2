"""The number of rows of one step of a model, chosen from the measured cost of steps.

Pure arithmetic: imports no torch, uses no clock and no requests. Immutable, so any thread may call it.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

from app.engine.request import MIN_ROWS, Shape

# Rows beyond this relative distance from the best throughput lengthen every step for no noticeable gain.
THROUGHPUT_TOLERANCE = 0.02

# An interactive request waits for the step that runs, so the length of a step is the latency of a click.
MAX_STEP_S = 1.0

# Resolution of the clock; a shorter step was not measured.
CLOCK_TICK_S = 1e-9


class RowBudget:
    """A model's cost curve at one shape, scaled to the others.

    A forward costs a constant, for its launches and for reading the weights, and an amount by rows and pixels. At
    smaller shapes the constant stays; at larger ones the whole is taken by pixels, because attention grows faster.
    """

    def __init__(
        self,
        curve: Mapping[int, float],
        shape: Shape,
        *,
        max_step_s: float = MAX_STEP_S,
        forwards: Callable[[Shape, int], Sequence[int]] = lambda _shape, rows: (rows,),
    ) -> None:
        """Take the measurements; impossible ones (no rows, no time, not finite) are ignored.

        Args:
            curve: Seconds of one step by its number of rows. Without a possible one, `MIN_ROWS` rows are assumed to
                last `max_step_s`.
            shape: The shape that was measured, sides >= 1.
            max_step_s: Longest step in seconds, > 0; `MIN_ROWS` rows may last longer.
            forwards: Returns the rows of each forward of a step, by shape and rows: at some shapes few rows can share
                one.
        """
        possible = {rows: step_s for rows, step_s in curve.items() if rows >= 1 and CLOCK_TICK_S <= step_s < math.inf}
        self._curve = _non_decreasing(possible or {MIN_ROWS: max_step_s})
        self._measured_rows = list(self._curve)
        self._pixels = math.prod(shape)
        self._max_step_s = max_step_s
        self._forwards = forwards
        self._constant_s = _constant_s(self._curve)

    def rows(self, shape: Shape) -> int:
        """Choose the rows of a step: the fewest with nearly the best throughput, and those that cost nothing more.

        Compares the row counts up to the largest measured one whose steps last at most `max_step_s`.

        Returns:
            >= `MIN_ROWS`.
        """
        throughputs = {}
        for rows in range(MIN_ROWS, self._measured_rows[-1] + 1):
            step_s = self.seconds(shape, rows)
            if step_s <= self._max_step_s:
                throughputs[rows] = rows / step_s
        enough = (1 - THROUGHPUT_TOLERANCE) * max(throughputs.values(), default=0.0)
        fewest = next((rows for rows, throughput in throughputs.items() if throughput >= enough), MIN_ROWS)
        # Where forwards are padded, a few more rows cost the same.
        return max(
            (rows for rows in throughputs if self.seconds(shape, rows) <= self.seconds(shape, fewest)), default=fewest
        )

    def seconds(self, shape: Shape, rows: int) -> float:
        """Return the cost of a step, > 0 seconds: linear between measured row counts.

        Fewer rows than measured cost as much as the fewest measured; more cost as much per row as the most measured.
        """
        share = math.prod(shape) / self._pixels
        constant_s = self._constant_s * max(0.0, 1 - share)
        return sum(constant_s + self._measured_s(part) * share for part in self._forwards(shape, rows))

    def _measured_s(self, rows: int) -> float:
        above = bisect_left(self._measured_rows, rows)
        if above == 0:
            return self._curve[self._measured_rows[0]]
        if above == len(self._measured_rows):
            most = self._measured_rows[-1]
            return self._curve[most] * rows / most
        left, right = self._measured_rows[above - 1], self._measured_rows[above]
        share = (rows - left) / (right - left)
        return (1 - share) * self._curve[left] + share * self._curve[right]


def _constant_s(curve: Mapping[int, float]) -> float:
    """Return what a forward without rows would cost, by the line through the first and the last measurement, >= 0."""
    fewest, most = min(curve), max(curve)
    if fewest == most:
        return 0.0
    per_row_s = (curve[most] - curve[fewest]) / (most - fewest)
    return max(0.0, curve[fewest] - per_row_s * fewest)


def _non_decreasing(curve: Mapping[int, float]) -> dict[int, float]:
    """Sort by rows and lower each cost to the smallest cost of more rows: disturbances only ever add time.

    Changes nothing in a fresh calibration, which is a line; `RowBudget` also takes curves from elsewhere.
    """
    lowered = {}
    least_s = math.inf
    for rows in sorted(curve, reverse=True):
        least_s = min(least_s, curve[rows])
        lowered[rows] = least_s
    return dict(reversed(lowered.items()))
