"""Measures the cost of a forward by its number of rows, and tests for which numbers rows are batch-invariant.

One probe for each size of latents: the same forwards answer both questions. Handles no requests. Runs on the loader
thread for the native size, on the device thread for others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import torch

from app.engine.diffusion.options import ANY_ROWS, RowPadding
from app.engine.request import MIN_ROWS


@dataclass(frozen=True, slots=True)
class Calibration:
    """The result of a probe.

    Attributes:
        seconds: Of one forward, by the number of requested rows, >= 1; includes the padding.
        padding: How rows are distributed over forwards.
        is_invariant: Whether no row's result changed with its position or with the other rows; False where batch
            invariance is not required.
    """

    seconds: dict[int, float]
    padding: RowPadding
    is_invariant: bool


def calibrate(
    forward: Callable[[int], torch.Tensor],
    time_limit_s: float,
    clock: Callable[[], float] = time.perf_counter,
    *,
    sizes: Sequence[int] = ANY_ROWS,
    must_match: bool = True,
    warms_up: bool = False,
) -> Calibration:
    """Run forwards of more and more rows until the time limit or the memory is reached.

    Numbers of rows at which a row's result is another than at the first number are not used. So the results are those
    of the first number however many others were tried in time: a busy machine draws the bytes of an idle one.

    Args:
        forward: Runs a forward of the given number of rows, of which the first and the last are always the same, waits
            for the device, and returns the results of these two.
        time_limit_s: No further number of rows is tried after this many seconds of timed forwards; one is always.
        clock: Returns seconds.
        sizes: The numbers of rows to try, ascending.
        must_match: Whether a row's result must be the same bytes whatever the number of rows.
        warms_up: Whether each number of rows is run once before it is timed: its first forward creates kernels, on the
            CPU too (oneDNN), which can double its time.
    """
    alone = forward(sizes[0])  # not timed: the first forward also initializes the device
    seconds: dict[int, float] = {}
    is_reproducible, spent_s = True, 0.0
    for rows in sizes:
        if spent_s > time_limit_s:
            break
        try:
            if warms_up and seconds:
                forward(rows)
            before = clock()
            result = forward(rows)
        except torch.OutOfMemoryError:
            if seconds:
                break
            raise
        took_s = clock() - before
        spent_s += took_s
        matches = not must_match or torch.equal(result, alone)
        if matches or not seconds:
            seconds[rows] = took_s
            is_reproducible = is_reproducible and matches
    return _conclude(seconds, is_invariant=must_match and is_reproducible and torch.equal(alone[0], alone[1]))


def still_holds(forward: Callable[[int], torch.Tensor], known: Calibration) -> bool:
    """Test an earlier calibration's batch invariance again, with two forwards instead of many.

    Args:
        forward: As for `calibrate`.
        known: A calibration of this model on this device.
    """
    fewest, most = known.padding.sizes[0], known.padding.most
    if not known.is_invariant or fewest == most:
        return True  # there is no invariance to test, or only one number of rows
    return torch.equal(forward(fewest), forward(most))


def _conclude(measured: dict[int, float], *, is_invariant: bool) -> Calibration:
    """Allow the numbers of rows that were measured; rows in between cost as much as the next allowed number."""
    padding = RowPadding(tuple(measured))
    fitted = _fit_line(measured)
    seconds = {rows: fitted[padding.size(rows)] for rows in range(MIN_ROWS, padding.most + 1)}
    return Calibration(seconds, padding, is_invariant)


def _fit_line(measured: Mapping[int, float]) -> dict[int, float]:
    """Fit a line through the measured seconds and return its values at the same numbers of rows.

    Each number of rows is measured once, while other programs run, and some forwards take three times as long. A
    forward costs a constant and an amount per row: close to a line on CPU and GPU (docs/decisions/0015). The line is
    the median one, which a quarter of outliers does not change.

    Source:
        Theil-Sen: Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
    """
    points = list(measured.items())
    if len(points) == 1:
        return dict(measured)
    per_row_s = max(0.0, median((b_s - a_s) / (b - a) for (a, a_s), (b, b_s) in combinations(points, 2)))
    constant_s = median(took_s - per_row_s * rows for rows, took_s in points)
    return {rows: max(constant_s, 0.0) + per_row_s * rows for rows, _ in points}
