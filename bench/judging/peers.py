"""The peers and the settings that each is tried with: its best one is measured.

Every setting uses the same number of CPU threads, float32, the weights' own preprocessing. What is not tried, and why:
infinity's `--compile` (minutes of warm-up for each shape on a CPU), its disk cache (it would remember the pictures as
well as the labels), its "fast" image processor (slower here: its thread's operations take the forward's cores).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.environments import peer_python
from bench.judging.servers import Server, start_infinity, start_litserve

# Worker processes, largest batch, seconds to wait for it.
LITSERVE = ((1, 16, 0.0), (1, 16, 0.01), (2, 8, 0.0), (2, 16, 0.0))
LITSERVE_QUICK = ((1, 16, 0.01), (2, 8, 0.0))
# Texts or images of a batch.
INFINITY = (16, 32, 64)
INFINITY_QUICK = (32,)


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a peer.

    Attributes:
        name: As the table shows it.
        start: Starts it; raises RuntimeError where that fails.
    """

    name: str
    start: Callable[[], Server]


@dataclass(frozen=True, slots=True)
class Environments:
    """Where the peers' environments are, and what every server gets.

    Attributes:
        folder: Has an environment a peer; built where it is missing.
        models: The weights.
        threads: CPU threads of each server.
    """

    folder: Path
    models: Path
    threads: int

    def litserve(self, endpoint: str, *, quick: bool) -> list[Setting]:
        """Return LitServe's settings for one endpoint; raises RuntimeError if it cannot be installed."""
        python = peer_python("litserve", self.folder)
        settings = [each for each in (LITSERVE_QUICK if quick else LITSERVE) if each[0] <= self.threads]
        start = partial(start_litserve, python, endpoint, models=self.models, threads=self.threads)
        return [
            Setting(
                f"litserve, {workers} worker{'s' * (workers > 1)}, batch {batch}, {timeout_s:g} s",
                partial(start, workers=workers, batch=batch, timeout_s=timeout_s),
            )
            for workers, batch, timeout_s in settings
        ]

    def infinity(self, *, quick: bool) -> list[Setting]:
        """Return infinity's settings; raises RuntimeError if it cannot be installed."""
        start = partial(start_infinity, peer_python("infinity", self.folder), models=self.models, threads=self.threads)
        return [
            Setting(f"infinity, batch {batch}", partial(start, batch=batch))
            for batch in (INFINITY_QUICK if quick else INFINITY)
        ]
