"""What was measured when a model was loaded, kept on disk so that the next start need not measure again.

One small file for each pack, which holds the last measurement alone and says under which circumstances it was made:
under others it is not used. Nothing depends on the file; a broken or old one is as good as none. Used by the engine's
loader thread.
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

# A machine changes in ways that nothing names: its other tenants, its power limits.
MAX_AGE_S = 30 * 24 * 3600

MAX_BYTES = 64 * 1024


class CalibrationFile:
    """The measurement of one model under given circumstances."""

    def __init__(self, path: Path, circumstances: Mapping[str, object], clock: Callable[[], float] = time.time) -> None:
        """Read nothing yet.

        Args:
            path: The file; need not exist, nor its folder.
            circumstances: What the measurement depends on; of JSON's types.
            clock: Seconds since 1970.
        """
        self._path = path
        self._circumstances: Any = json.loads(json.dumps(circumstances))  # lists, as the file will give them back
        self._clock = clock

    def read(self) -> Calibration | None:
        """Return the measurement; None if there is none of these circumstances that can be used."""
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
        """Replace the file in one go; where that fails, the next start measures again."""
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
            logger.info("The measurement of the model could not be kept; the next start makes it again.")


def _parse(content: Any) -> Calibration:
    """Build the measurement; raises ValueError, or what else broken content leads to, unless it can be true."""
    seconds = {int(rows): float(step_s) for rows, step_s in content["seconds"].items()}
    sizes = tuple(int(size) for size in content["sizes"])
    is_ascending = all(fewer < more for fewer, more in pairwise(sizes))
    if not sizes or not is_ascending or sizes[0] < 1 or sizes[-1] > MAX_ROWS or not seconds:
        raise ValueError("sizes that are none")
    if not all(1 <= rows <= MAX_ROWS and 0 < step_s < math.inf for rows, step_s in seconds.items()):
        raise ValueError("times that are none")
    return Calibration(seconds, RowPadding(sizes), is_invariant=content["is_invariant"] is True)


def is_busy(load: Callable[[], tuple[float, float, float]] = os.getloadavg) -> bool:
    """Tell whether others use this machine so much that a measurement says more of them than of the model."""
    return load()[0] > (os.cpu_count() or 1)
