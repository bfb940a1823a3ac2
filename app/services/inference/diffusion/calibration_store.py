"""Keeps a model's calibration on disk, so that the next start does not measure again.

One small file for each pack holds the last measurement and the circumstances that it was made under; under others it
is not used. A damaged, old or absent file only means that the model is measured again. Used by the engine's loader
thread.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from app.engine.diffusion.calibration import Calibration
from app.engine.diffusion.options import MAX_ROWS, RowPadding

logger = logging.getLogger(__name__)

# A machine changes in ways that the circumstances do not record: its other tenants, its power limits.
MAX_AGE_S = 30 * 24 * 3600

MAX_BYTES = 64 * 1024


class CalibrationFile:
    """The file with one model's calibration under given circumstances."""

    def __init__(self, path: Path, circumstances: Mapping[str, object], clock: Callable[[], float] = time.time) -> None:
        """Name the file; nothing is read yet.

        Args:
            path: The file; need not exist, nor its folder.
            circumstances: What the measurement depends on; of JSON's types.
            clock: Seconds since 1970.
        """
        self._path = path
        self._circumstances: Any = json.loads(json.dumps(circumstances))  # lists, as the file will give them back
        self._clock = clock

    def read(self) -> Calibration | None:
        """Return the calibration; None if there is no valid one for these circumstances, of the last 30 days."""
        try:
            with self._path.open("rb") as file:
                content = json.loads(file.read(MAX_BYTES))
            age_s = self._clock() - content["measured_at"]
            if content["circumstances"] != self._circumstances or not 0 <= age_s < MAX_AGE_S:
                return None
            return _parse(content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, calibration: Calibration) -> None:
        """Replace the file atomically; if that fails, the next start measures again."""
        content = {
            "circumstances": self._circumstances,
            "measured_at": self._clock(),
            "seconds": calibration.seconds,
            "sizes": calibration.padding.sizes,
            "is_invariant": calibration.is_invariant,
        }
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(content))
            os.replace(part, self._path)
        except OSError:
            logger.info("The calibration of the model could not be stored. The next start measures again.")


def _parse(content: Any) -> Calibration:
    """Return the calibration; raises ValueError, or what damaged content causes, unless it is plausible."""
    seconds = {int(rows): float(step_s) for rows, step_s in content["seconds"].items()}
    sizes = tuple(int(size) for size in content["sizes"])
    is_ascending = all(fewer < more for fewer, more in pairwise(sizes))
    if not sizes or not is_ascending or sizes[0] < 1 or sizes[-1] > MAX_ROWS or not seconds:
        raise ValueError("The forward sizes are not plausible.")
    if not all(1 <= rows <= MAX_ROWS and 0 < step_s < math.inf for rows, step_s in seconds.items()):
        raise ValueError("The step times are not plausible.")
    return Calibration(seconds, RowPadding(sizes), is_invariant=content["is_invariant"] is True)


def is_busy(load: Callable[[], tuple[float, float, float]] = os.getloadavg) -> bool:
    """Return whether the load of other processes is too high for a measurement: above one per core."""
    return load()[0] > (os.cpu_count() or 1)
