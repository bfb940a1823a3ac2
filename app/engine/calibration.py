"""What a forward costs by its number of rows, and up to which number a row's result does not depend on it.

One look at a model for each size of its latents: the same forwards answer both questions. Knows nothing of requests.
Runs on the loader thread for the native size, on the device thread for others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from app.engine.invariance import FALLBACK_ROWS, LEAST_ROWS, RowPadding

MOST_ROWS = 32


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found.

    Attributes:
        seconds: Of one forward by its number of rows, >= 1 of them.
        padding: What keeps a row's result independent of the others.
    """

    seconds: dict[int, float]
    padding: RowPadding


def calibrate(
    forward: Callable[[int], torch.Tensor],
    time_limit_s: float,
    clock: Callable[[], float] = time.perf_counter,
    *,
    must_match: bool = True,
) -> Calibration:
    """Run forwards of 2, 3, 4 ... rows until time or memory is over or a row's result changes.

    Args:
        forward: Runs so many rows, the first one always the same, waits for the device, and returns the first
            row's result.
        time_limit_s: No further forward begins after this; the first two always run.
        clock: Seconds.
        must_match: Whether a row's result has to be the same bytes whatever the number of rows.
    """
    alone = forward(LEAST_ROWS)  # the first forward also sets up the device, so its time tells nothing
    seconds: dict[int, float] = {}
    started_at = clock()
    for rows in range(LEAST_ROWS, MOST_ROWS + 1):
        before = clock()
        if seconds and before - started_at > time_limit_s:
            break
        try:
            result = forward(rows)
        except torch.OutOfMemoryError:
            if seconds:
                break
            raise
        if must_match and not torch.equal(result, alone):
            return _with_few_rows(forward, seconds, clock)
        seconds[rows] = clock() - before
    return Calibration(seconds, RowPadding(most=max(seconds)))


def _with_few_rows(
    forward: Callable[[int], torch.Tensor], seconds: dict[int, float], clock: Callable[[], float]
) -> Calibration:
    """Stay below the number where results change; if that would be too few, always use the same number."""
    most = max(seconds, default=0)
    if most >= FALLBACK_ROWS:
        return Calibration(seconds, RowPadding(most=most))
    before = clock()
    forward(FALLBACK_ROWS)
    return Calibration({FALLBACK_ROWS: clock() - before}, RowPadding(most=FALLBACK_ROWS, least=FALLBACK_ROWS))
