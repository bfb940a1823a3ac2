"""Sends traces to a server and takes the times. Knows no server in particular; runs on one event loop."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import numpy as np

from bench.generate.traces import ImageRequest

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Run:
    """What one load gave.

    Attributes:
        latencies: Seconds of each request that was answered with a PNG, in no order.
        failures: Requests that were not.
        wall_s: From the first request to the last answer.
    """

    latencies: list[float]
    failures: int
    wall_s: float

    @property
    def throughput(self) -> float:
        """Images a second."""
        return len(self.latencies) / self.wall_s

    def percentile(self, rank: float) -> float:
        """Seconds within which so many of a hundred answered requests were; not a number where none was."""
        return float(np.percentile(self.latencies, rank)) if self.latencies else math.nan


class Poster(Protocol):
    """What sends a request: `httpx.AsyncClient` does."""

    async def post(self, url: str, /, *, json: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        """Send a body, and return the answer."""


class WithFields:
    """Sends every body with further fields."""

    def __init__(self, http: httpx.AsyncClient, fields: Mapping[str, Any]) -> None:
        """Send through a client."""
        self._http, self._fields = http, fields

    async def post(self, url: str, /, *, json: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        """Send a body, and return the answer."""
        return await self._http.post(url, json={**json, **self._fields}, headers=dict(headers))


class Stopwatch:
    """Sends requests and collects their times."""

    def __init__(self, http: Poster) -> None:
        """Use a client whose base URL is the server's."""
        self._http = http
        self._latencies: list[float] = []
        self._failures = 0
        self._started_at = time.perf_counter()

    async def send(self, request: ImageRequest, *, due_at: float | None = None, is_timed: bool = True) -> None:
        """Send a request and wait for the answer.

        Args:
            request: What is asked.
            due_at: When it should have been sent, by `time.perf_counter`; its latency counts from there.
            is_timed: Whether its latency counts; a failure always does.
        """
        sent_at = due_at or time.perf_counter()
        try:
            response = await self._http.post("/generate", json=request.to_json(), headers={"Accept": "image/png"})
            is_image = response.status_code == 200 and response.content.startswith(PNG_SIGNATURE)
        except httpx.HTTPError:
            is_image = False
        if not is_image:
            self._failures += 1
        elif is_timed:
            self._latencies.append(time.perf_counter() - sent_at)

    def stop(self) -> Run:
        """Return what was collected."""
        return Run(self._latencies, self._failures, time.perf_counter() - self._started_at)


async def closed_loop(http: Poster, trace: Sequence[ImageRequest], clients: int) -> Run:
    """Let clients send one request after the other, each the next of the trace, until it is over."""
    requests = iter(trace)
    watch = Stopwatch(http)

    async def client() -> None:
        for request in requests:
            await watch.send(request)

    await asyncio.gather(*(client() for _ in range(clients)))
    return watch.stop()


async def open_loop(http: Poster, trace: Sequence[ImageRequest], arrivals: Sequence[float]) -> Run:
    """Send each request at its time, however many are still unanswered."""
    watch = Stopwatch(http)
    started_at = time.perf_counter()

    async def arrive(request: ImageRequest, at_s: float) -> None:
        await asyncio.sleep(started_at + at_s - time.perf_counter())
        await watch.send(request, due_at=started_at + at_s)

    await asyncio.gather(*map(arrive, trace, arrivals))
    return watch.stop()


async def late_arrivals(http: Poster, pairs: Sequence[tuple[ImageRequest, ImageRequest]], delay_s: float) -> Run:
    """Send the first of each pair, the second after a delay; time the second alone, pair after pair."""
    watch = Stopwatch(http)
    for long, short in pairs:
        running = asyncio.ensure_future(watch.send(long, is_timed=False))
        await asyncio.sleep(delay_s)
        await watch.send(short)
        await running
    return watch.stop()
