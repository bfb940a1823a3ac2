"""Runs the servers through the loads: the peers' tuning first, then rounds in which all take each load by turns.

All servers stay up, and all but the one that is measured are paused, so that none takes cores from another. A machine's
speed wanders from minute to minute: what is compared is measured one after the other. Runs on the main thread.
"""

from __future__ import annotations

import asyncio
import io
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from bench.generate.load import Poster, Run, WithFields, closed_loop
from bench.generate.pipeline import Subject, draw_one
from bench.generate.plan import BUSY_CLIENTS, LONG, SHORT, Load, Plan, busy_load, make_loads
from bench.generate.servers import (
    BALANCED,
    RunningServer,
    Server,
    foxhound,
    litserve_server,
    lock_server,
    running,
    threads_server,
)
from bench.generate.traces import SCHEDULERS, ImageRequest, Traffic

REQUEST_TIMEOUT_S = 300.0
LATE_AT_STEP = 5
TRAFFICS: tuple[Traffic, ...] = ("identical", "mixed")

# Mean levels a pixel, by the models' number format. Another order of the same float32 sums moves a pixel in thousands
# by a level; half precision rounds every sum, and PNDM with 10 steps makes four levels of bfloat16's rounding, in the
# pipeline as well as here. Other pictures are tens of levels apart.
MOST_PIXEL_DIFFERENCE = {"float32": 0.1, "float16": 2.0, "bfloat16": 8.0}


@dataclass(slots=True)
class Results:
    """Everything that was measured.

    Attributes:
        tuning: Images a second by peer, setting and traffic.
        chosen: The setting of each peer by traffic.
        capacity: Images a second of the best peer on mixed traffic, by its tuning.
        runs: By server and load, one for each repeat.
        alone_s: Of the requests to an idle node, and
        direct_s: of the pipeline's calls between them.
    """

    tuning: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    chosen: dict[str, dict[str, str]] = field(default_factory=dict)
    capacity: float = 0.0
    runs: dict[str, dict[str, list[Run]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    alone_s: list[float] = field(default_factory=list)
    direct_s: list[float] = field(default_factory=list)


class Bench:
    """One run of everything."""

    def __init__(self, plan: Plan, pipeline: Any, subject: Subject, litserve_python: Path, logs: Path) -> None:
        """Take what the servers need.

        Args:
            plan: How much is measured.
            pipeline: The pack in this process, for the direct calls.
            subject: What every server serves, and on what.
            litserve_python: The interpreter of LitServe's environment.
            logs: Folder of the servers' output.
        """
        self._plan = plan
        self._pipeline = pipeline
        self._subject = subject
        self._servers: dict[Server, RunningServer] = {}
        self._litserve_python = litserve_python
        self._logs = logs
        self._expected = {name: draw_one(pipeline, replace(SHORT, scheduler=name)) for name in SCHEDULERS}
        self.results = Results()

    def run(self) -> Results:
        """Tune the peers, then measure everybody, repeat after repeat."""
        with ExitStack() as stack:
            for server in (foxhound(), *self._peers()):
                self._servers[server] = stack.enter_context(
                    running(server, self._subject, self._logs / f"{server.name}.log")
                )
                self._warm_up(server, self._servers[server].url)
                self._servers[server].pause()
            self._measure_all()
        return self.results

    def _measure_all(self) -> None:
        entrants: list[tuple[Server, set[Traffic]]] = [(foxhound(), set(TRAFFICS)), *self._tune()]
        loads = make_loads(self._plan, self.results.capacity, self._late_by_s())
        for repeat in range(self._plan.repeats):
            self._measure_alone()
            first = repeat % len(entrants)  # another one leads every round
            for load in loads:
                for server, traffics in entrants[first:] + entrants[:first]:
                    if load.traffic in traffics:
                        self.results.runs[server.name][load.name].append(self._measure(server, load, repeat))
                balanced = self._measure(foxhound(), load, repeat, speed="balanced")
                self.results.runs[BALANCED][load.name].append(balanced)

    def _tune(self) -> list[tuple[Server, set[Traffic]]]:
        """Find each peer's best setting for each traffic, by its throughput with many clients."""
        best: dict[tuple[str, Traffic], tuple[float, Server]] = {}
        loads = [busy_load(traffic, BUSY_CLIENTS, self._plan.tuning_count) for traffic in TRAFFICS]
        for load in loads:
            for server in self._peers():
                rate = self._measure(server, load, 0).throughput
                settings = self.results.tuning.setdefault(server.name, {}).setdefault(server.setting, {})
                settings[load.traffic] = rate
                best[server.name, load.traffic] = max(
                    best.get((server.name, load.traffic), (0.0, server)), (rate, server), key=lambda pair: pair[0]
                )
        self.results.capacity = max(rate for (_, traffic), (rate, _) in best.items() if traffic == "mixed")
        entrants: dict[Server, set[Traffic]] = defaultdict(set)
        for (name, traffic), (_, server) in best.items():
            entrants[server].add(traffic)
            self.results.chosen.setdefault(name, {})[traffic] = server.setting
        return list(entrants.items())

    def _peers(self) -> list[Server]:
        return [
            lock_server(),
            *map(threads_server, self._plan.workers),
            *(litserve_server(self._litserve_python, *batch) for batch in self._plan.batches),
        ]

    def _late_by_s(self) -> float:
        """Time a long image, and tell when it is at its fifth step."""
        draw_one(self._pipeline, SHORT)
        times = [timed(lambda: draw_one(self._pipeline, LONG)) for _ in range(3)]
        return statistics.median(times) * LATE_AT_STEP / LONG.num_inference_steps

    def _measure(self, server: Server, load: Load, repeat: int, **fields: str) -> Run:
        with self._resumed(server) as url:
            return self._send(server, url, load, repeat, fields)

    def _measure_alone(self) -> None:
        """Ask an idle node and call the pipeline by turns."""
        with self._resumed(foxhound()) as url, httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S) as http:
            for seed in range(self._plan.alone_pairs):
                request = ImageRequest("a watercolor painting of a red fox", scheduler="ddim", seed=seed)
                self.results.alone_s.append(timed(partial(fetch, http, request)))
                self.results.direct_s.append(timed(partial(draw_one, self._pipeline, request)))

    @contextmanager
    def _resumed(self, server: Server) -> Iterator[str]:
        """Let a server go on until the block ends, which begins after an image that nobody times."""
        running_server = self._servers[server]
        running_server.resume()
        with httpx.Client(base_url=running_server.url, timeout=REQUEST_TIMEOUT_S) as http:
            fetch(http, SHORT)
        yield running_server.url
        running_server.pause()

    def _warm_up(self, server: Server, url: str) -> None:
        most = MOST_PIXEL_DIFFERENCE[self._subject.dtype]
        with httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S) as http:
            for scheduler in SCHEDULERS:
                request = replace(SHORT, scheduler=scheduler)
                check_pixels(server.name, fetch(http, request), self._expected[scheduler], most)
        trace = [replace(SHORT, scheduler=name, guidance_scale=scale) for scale in (7.5, 1.0) for name in SCHEDULERS]
        self._send(server, url, Load("warm-up", "mixed", lambda http, _: closed_loop(http, trace, BUSY_CLIENTS)), 0, {})

    def _send(self, server: Server, url: str, load: Load, repeat: int, fields: Mapping[str, str]) -> Run:
        async def send() -> Run:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S, limits=limits) as http:
                sender: Poster = WithFields(http, fields) if fields else http
                return await load.run(sender, repeat)

        run = asyncio.run(send())
        setting = server.setting or ", ".join(fields.values())
        progress(f"{server.name:<9} {setting:<16} {load.name:<22} {run.throughput:6.2f} images/s")
        return run


def fetch(http: httpx.Client, request: ImageRequest) -> bytes:
    """Ask for one image; raises unless it is answered."""
    response = http.post("/generate", json=request.to_json(), headers={"Accept": "image/png"})
    return response.raise_for_status().content


def check_pixels(name: str, png: bytes, expected: Image.Image, most: float) -> None:
    """Make sure that a server drew what it was asked for, but for so many levels a pixel.

    Raises:
        RuntimeError: Its picture is another one than the pipeline's.
    """
    difference = np.abs(np.asarray(Image.open(io.BytesIO(png))).astype(float) - np.asarray(expected)).mean()
    if difference > most:
        raise RuntimeError(f"{name} drew another picture than the pipeline: {difference:.1f} levels a pixel away")


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


def progress(text: str) -> None:
    """Say on standard error how far it is."""
    print(text, file=sys.stderr, flush=True)
