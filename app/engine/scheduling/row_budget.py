"""How many rows one step of a model should take, from what steps were measured to cost.

Pure arithmetic: knows no requests, no tensors and no clock. Immutable, so any thread may ask.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping

Shape = tuple[int, ...]

# One guided request needs two rows, so a smaller budget would be none.
MIN_ROWS = 2

# More rows than these delay everybody's step for a gain that nobody notices.
THROUGHPUT_TOLERANCE = 0.02

# An interactive request waits for the step that runs, so a step's length is what a click feels.
MAX_STEP_S = 1.0

# No clock sees less, so a shorter step was not measured.
CLOCK_TICK_S = 1e-9


class RowBudget:
    """A model's cost curve at one shape, scaled by pixels to the others."""

    def __init__(self, curve: Mapping[int, float], shape: Shape, *, max_step_s: float = MAX_STEP_S) -> None:
        """Take the measurements; those that cannot be true (no rows, no time, no numbers) are left out.

        Args:
            curve: Seconds of one step by its number of rows. If none of it can be true, two rows are taken to
                last as long as a step may.
            shape: What was measured, sides >= 1.
            max_step_s: Seconds that a step may last, > 0; `MIN_ROWS` rows may last longer.
        """
        possible = {rows: step_s for rows, step_s in curve.items() if rows >= 1 and CLOCK_TICK_S <= step_s < math.inf}
        self._curve = _undisturbed(possible or {MIN_ROWS: max_step_s})
        self._measured_rows = list(self._curve)
        self._pixels = math.prod(shape)
        self._max_step_s = max_step_s

    def rows(self, shape: Shape) -> int:
        """Choose the rows of a step: the fewest whose rows per second are close to the best, and what is free then.

        Only row counts up to the largest measured one whose step is short enough are compared.

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
        # Where forwards are filled up, some rows cost as much as a few more do.
        return max(
            (rows for rows in throughputs if self.seconds(shape, rows) <= self.seconds(shape, fewest)), default=fewest
        )

    def seconds(self, shape: Shape, rows: int) -> float:
        """Tell what a step costs, > 0 seconds: linear between measured row counts.

        Fewer rows than measured cost as much as the fewest measured, more cost as much a row as the most measured.
        """
        return self._measured_s(rows) * math.prod(shape) / self._pixels

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


def _undisturbed(curve: Mapping[int, float]) -> dict[int, float]:
    """Sort by rows and let no step cost more than a step of more rows: a disturbance only ever adds time."""
    undisturbed = {}
    least_s = math.inf
    for rows in sorted(curve, reverse=True):
        least_s = min(least_s, curve[rows])
        undisturbed[rows] = least_s
    return dict(reversed(undisturbed.items()))
