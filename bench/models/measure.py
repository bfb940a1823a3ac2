"""Clients of a node's engine that name models, what they get, and how much memory models take meanwhile.

Each client draws one image after another, each of a model at random. Runs in one process, without HTTP.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.image_spec import ImageSpec
from app.services.inference.service import Inference

# Seconds between two looks at the memory of models.
LOOK_S = 0.02


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        lost: Requests that raised an error, by its name.
        loads: Models that were loaded, evicted ones again.
        peak_bytes: Of the models beside the default one, loaded or being loaded.
        resident_bytes: The most that the process had in memory, above what it had at the beginning.
        changed: Images whose bytes are others than those that the same spec had before.
    """

    images: int
    seconds: float
    latencies_s: tuple[float, ...]
    lost: dict[str, int]
    loads: int
    peak_bytes: int
    resident_bytes: int
    changed: int

    @property
    def images_per_s(self) -> float:
        """Images a second."""
        return self.images / self.seconds

    def latency_s(self, share: float) -> float:
        """Return the seconds within which this share of the images was there."""
        return sorted(self.latencies_s)[min(len(self.latencies_s) - 1, int(share * len(self.latencies_s)))]

    @property
    def median_s(self) -> float:
        """The median of the seconds of an image."""
        return statistics.median(self.latencies_s)


class Clients:
    """Several clients, each with its own order of models."""

    def __init__(self, inference: Inference, spec: ImageSpec, models: Sequence[str | None]) -> None:
        """Draw the spec on one model after another, at random."""
        self._inference, self._spec, self._models = inference, spec, models
        self._hashes: dict[tuple[str | None, int], str] = {}
        self._changed = 0
        self._latencies: list[float] = []
        self._lost: Counter[str] = Counter()
        self._most = 0

    async def run(self, num_clients: int, images_each: int) -> Measured:
        """Let the clients draw their images."""
        began, loads_before = time.monotonic(), self._inference.models.state().loads
        watch = asyncio.create_task(self._watch())
        await asyncio.gather(*(self._client(number, images_each) for number in range(num_clients)))
        seconds = time.monotonic() - began
        watch.cancel()
        return Measured(
            images=len(self._latencies),
            seconds=seconds,
            latencies_s=tuple(self._latencies),
            lost=dict(self._lost),
            loads=self._inference.models.state().loads - loads_before,
            peak_bytes=self._inference.models.peak_bytes,
            resident_bytes=self._most,
            changed=self._changed,
        )

    async def _client(self, number: int, images: int) -> None:
        order = random.Random(number)
        for index in range(images):
            spec = replace(self._spec, model=order.choice(self._models), seed=index)
            sent_at = time.monotonic()
            try:
                made = await self._inference.render(spec, caller=f"client {number}")
            except Exception as error:
                self._lost[type(error).__name__] += 1
                continue
            self._latencies.append(time.monotonic() - sent_at)
            known = self._hashes.setdefault((spec.model, spec.seed), made.info.sha256)
            self._changed += known != made.info.sha256

    async def _watch(self) -> None:
        before = _resident_bytes()
        while True:
            self._most = max(self._most, _resident_bytes() - before)
            await asyncio.sleep(LOOK_S)


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
