"""What a forward costs by its number of rows, and up to which number a row's result does not depend on it.

One look at a model for each size of its latents: the same forwards answer both questions. Knows nothing of requests.
Runs on the loader thread for the native size, on the device thread for others.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

import torch

from app.engine.diffusion.invariance import FALLBACK_ROWS, LEAST_ROWS, RowPadding

MOST_ROWS = 32

# Every number of rows, for a device that computes a row alike whatever their number.
ANY_ROWS = tuple(range(LEAST_ROWS, MOST_ROWS + 1))

# A GPU chooses kernels, and records graphs, for each number of rows anew: so it gets few of them to choose from.
ROW_BUCKETS = (2, 4, 8, 12, 16, 24, MOST_ROWS)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found.

    Attributes:
        seconds: Of one forward by the number of rows that are wanted, >= 1 of them; what fills it up is paid for.
        padding: How rows are put into forwards.
        is_invariant: No row's result was seen to depend on its place or on the others; where bytes are not promised,
            False.
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
    """Run forwards of more and more rows until time or memory is over or a row's result changes.

    Args:
        forward: Runs so many rows, the first and the last always the same, waits for the device, and returns the
            results of these two.
        time_limit_s: No further number of rows is tried after so many seconds of timed forwards; one is always.
        clock: Seconds.
        sizes: The numbers of rows to try, ascending.
        must_match: Whether a row's result has to be the same bytes whatever the number of rows.
        warms_up: Whether each number of rows is run once before it is timed: its first forward makes kernels, on the
            CPU too (oneDNN), which takes up to as long again.
    """
    alone = forward(sizes[0])  # the first forward also sets up the device, so its time tells nothing
    seconds: dict[int, float] = {}
    for rows in sizes:
        if sum(seconds.values()) > time_limit_s:
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
        if must_match and not torch.equal(result, alone):
            return _with_few_rows(forward, seconds, clock)
        seconds[rows] = clock() - before
    return _conclude(seconds, is_invariant=must_match and torch.equal(alone[0], alone[1]))


def still_holds(forward: Callable[[int], torch.Tensor], known: Calibration) -> bool:
    """Tell whether rows are still as independent as they were when this was found: two forwards instead of many.

    Args:
        forward: As for `calibrate`.
        known: What was found before, on this device with this model.
    """
    fewest, most = known.padding.sizes[0], known.padding.most
    if not known.is_invariant or fewest == most:
        return True  # nothing was promised, or there is no other number of rows to differ from
    return torch.equal(forward(fewest), forward(most))


def _with_few_rows(
    forward: Callable[[int], torch.Tensor], seconds: dict[int, float], clock: Callable[[], float]
) -> Calibration:
    """Stay below the number where results change; if that would be too few, always use the same number."""
    if max(seconds, default=0) >= FALLBACK_ROWS:
        return _conclude(seconds, is_invariant=True)
    once = forward(FALLBACK_ROWS)
    before = clock()
    again = forward(FALLBACK_ROWS)
    took_s = clock() - before
    is_invariant = torch.equal(once, again) and torch.equal(again[0], again[1])
    return _conclude({FALLBACK_ROWS: took_s}, is_invariant=is_invariant)


def _conclude(measured: dict[int, float], *, is_invariant: bool) -> Calibration:
    """Use the numbers of rows that were measured, and tell what rows in between cost, filled up to the next."""
    padding = RowPadding(tuple(measured))
    undisturbed = _undisturbed(measured)
    seconds = {rows: undisturbed[padding.size(rows)] for rows in range(LEAST_ROWS, padding.most + 1)}
    return Calibration(seconds, padding, is_invariant)


def _undisturbed(measured: Mapping[int, float]) -> dict[int, float]:
    """Return what a forward costs by a line through what was measured, at the same numbers of rows.

    One forward of each is measured, while other things start, and some take three times as long. A forward costs what
    it always costs and the same for each row: close to a line on CPU and GPU (docs/decisions/0015). The line is the
    median one, which a quarter of bad points does not move.

    Source:
        Theil-Sen: Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
    """
    points = list(measured.items())
    if len(points) == 1:
        return dict(measured)
    per_row_s = max(0.0, median((b_s - a_s) / (b - a) for (a, a_s), (b, b_s) in combinations(points, 2)))
    always_s = median(took_s - per_row_s * rows for rows, took_s in points)
    return {rows: max(always_s, 0.0) + per_row_s * rows for rows, _ in points}
