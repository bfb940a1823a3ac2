"""The metrics of one application: its registry, and what is read from the node at each scrape.

The engine, the models and the disk are reported by functions that `app/wiring.py` hands in. `scrape` is called on the
event loop; the text is made on a pool thread.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.metrics import series
from app.metrics.engine import EngineMetrics
from app.metrics.figures import Figures
from app.metrics.http import HttpMetrics
from app.metrics.records import JobFigures, ages_s
from app.metrics.series import PREFIX, Series, model_family

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# Prometheus gives up after 10 s; the database waits up to 10 s for a lock.
WAIT_S: Final = 1.0
JOBS_MAX_AGE_S: Final = 10.0
# On SQLite, counting 20,000 ended jobs takes 0.1 s, adding up the bytes of 100,000 images 0.3 s.
ENDED_MAX_AGE_S: Final = 60.0
BYTES_MAX_AGE_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class LoadedWeights:
    """What is loaded of one kind beside the default diffusion model, and what was done since the start.

    Attributes:
        loaded: Models, or sets of adapters.
        num_bytes: Of their weights.
        max_bytes: The bound of these.
        waiting: Requests that wait for room.
        loads: How often one was loaded.
        failures: How often one could not be.
        evictions: How often one was dropped.
    """

    loaded: int
    num_bytes: int
    max_bytes: int
    waiting: int
    loads: int
    failures: int
    evictions: int


@dataclass(frozen=True, slots=True)
class EngineState:
    """An engine at one moment.

    Attributes:
        is_alive: Whether its device thread runs.
        waiting: Model, priority, number and age of the oldest in seconds of the requests that wait.
        in_flight: Requests by model.
        ready: Whether each model is loaded.
        model_bytes: Bytes of the weights of the pack's models.
        backbones: Number and bytes of the backbones that were loaded on demand.
        weights: Models and adapters beside the default diffusion model, by kind.
    """

    is_alive: bool = False
    waiting: Sequence[tuple[str, str, int, float]] = ()
    in_flight: Mapping[str, int] = field(default_factory=dict)
    ready: Mapping[str, bool] = field(default_factory=dict)
    model_bytes: Mapping[str, int] = field(default_factory=dict)
    backbones: tuple[int, int] = (0, 0)
    weights: Mapping[str, LoadedWeights] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeSources:
    """Where a node's state is read.

    Attributes:
        engine: Answers from memory.
        jobs: Asks the database for active jobs and workers.
        ended_jobs: Asks it for the number of ended jobs by kind and status.
        stored_bytes: Bytes by kind; asks the database and looks at some folders.
        free_bytes: Free bytes on the disk; None where they cannot be measured.
        reserve_bytes: Free bytes below which new work is refused.
        worker_ttl_s: Seconds without a heartbeat after which a worker counts as dead.
        build: Version, pack and device, by the labels of `build_info`.
    """

    engine: Callable[[], EngineState]
    jobs: Callable[[], JobFigures]
    ended_jobs: Callable[[], Mapping[tuple[str, ...], int]]
    stored_bytes: Callable[[], Mapping[str, int]]
    free_bytes: Callable[[], int | None]
    reserve_bytes: int
    worker_ttl_s: float
    build: Callable[[], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class _Latest:
    """The figures of the latest scrape; None for those that could not be had."""

    jobs: JobFigures | None = None
    ended_jobs: Mapping[tuple[str, ...], int] | None = None
    stored_bytes: Mapping[str, int] | None = None


class NodeMetrics(Collector):
    """Everything that one application counts, and the state of its node.

    Attributes:
        http: Counts requests.
        engine: Observes the engine.
    """

    def __init__(self) -> None:
        """Make the registry; until `watch`, it has counters alone."""
        self._registry = CollectorRegistry()
        self.http = HttpMetrics(self._registry)
        self.engine = EngineMetrics(self._registry)
        ProcessCollector(namespace=PREFIX.rstrip("_"), registry=self._registry)
        self._sources: NodeSources | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="figures")
        self._latest = _Latest()

    def watch(self, sources: NodeSources) -> None:
        """Report the state of a node from now on."""
        self._sources = sources
        self._jobs = Figures(sources.jobs, self._threads, max_age_s=JOBS_MAX_AGE_S)
        self._ended = Figures(sources.ended_jobs, self._threads, max_age_s=ENDED_MAX_AGE_S)
        self._bytes = Figures(sources.stored_bytes, self._threads, max_age_s=BYTES_MAX_AGE_S)
        self._registry.register(self)

    async def scrape(self) -> bytes:
        """Return all series in Prometheus' text form."""
        if self._sources is not None:
            jobs, ended = await self._jobs.read(WAIT_S), await self._ended.read(WAIT_S)
            self._latest = _Latest(jobs, ended, await self._bytes.read(WAIT_S))
        return await asyncio.to_thread(generate_latest, self._registry)

    def close(self) -> None:
        """Compute nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def describe(self) -> list[Metric]:
        """Return nothing, so that registration does not collect."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the state of the node; called by the registry on the thread of a scrape."""
        sources = self._sources
        if sources is None:
            return
        yield from _engine(sources.engine())
        latest = self._latest
        yield _gauge(series.DATABASE_UP, {(): latest.jobs is not None})
        if latest.jobs is not None:
            yield from _jobs(latest.jobs, latest.ended_jobs or {}, sources.worker_ttl_s)
        if latest.stored_bytes is not None:
            yield _gauge(series.STORED, {(kind,): number for kind, number in latest.stored_bytes.items()})
        free = sources.free_bytes()
        if free is not None:
            yield _gauge(series.FREE, {(): free})
        yield _gauge(series.RESERVE, {(): sources.reserve_bytes})
        build = sources.build()
        yield _gauge(series.BUILD, {tuple(build[label] for label in series.BUILD.labels): 1})


def _gauge(described: Series, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(described.full_name, described.meaning, labels=described.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _counter(described: Series, values: Mapping[tuple[str, ...], float]) -> Metric:
    family = CounterMetricFamily(described.full_name, described.meaning, labels=described.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family


def _weights(weights: Mapping[str, LoadedWeights]) -> Iterator[Metric]:
    yield _gauge(series.WEIGHTS, {(kind,): each.loaded for kind, each in weights.items()})
    yield _gauge(series.WEIGHTS_BYTES, {(kind,): each.num_bytes for kind, each in weights.items()})
    yield _gauge(series.WEIGHTS_LIMIT, {(kind,): each.max_bytes for kind, each in weights.items()})
    yield _gauge(series.WEIGHTS_WAITING, {(kind,): each.waiting for kind, each in weights.items()})
    loads: dict[tuple[str, ...], float] = {(kind, "loaded"): each.loads for kind, each in weights.items()}
    loads |= {(kind, "failed"): each.failures for kind, each in weights.items()}
    yield _counter(series.WEIGHTS_LOADS, loads)
    yield _counter(series.WEIGHTS_EVICTIONS, {(kind,): each.evictions for kind, each in weights.items()})


def _engine(state: EngineState) -> Iterator[Metric]:
    ages: dict[tuple[str, ...], float] = {(priority,): 0.0 for priority in series.PRIORITIES}
    numbers: dict[tuple[str, ...], float] = {
        (model_family(model), priority): 0 for model in state.in_flight for priority in series.PRIORITIES
    }
    for model, priority, number, oldest_s in state.waiting:
        key = (model_family(model), priority)
        numbers[key] = numbers.get(key, 0) + number
        ages[priority,] = max(ages.get((priority,), 0.0), oldest_s)
    in_flight: dict[tuple[str, ...], float] = {}
    for model, number in state.in_flight.items():
        in_flight[model_family(model),] = in_flight.get((model_family(model),), 0) + number
    yield _gauge(series.ENGINE_UP, {(): state.is_alive})
    yield _gauge(series.QUEUE, numbers)
    yield _gauge(series.QUEUE_AGE, ages)
    yield _gauge(series.IN_FLIGHT, in_flight)
    yield _gauge(series.MODEL_READY, {(model,): is_ready for model, is_ready in state.ready.items()})
    yield _gauge(series.MODEL_BYTES, {(model,): number for model, number in state.model_bytes.items()})
    num_backbones, num_bytes = state.backbones
    yield _gauge(series.BACKBONES, {(): num_backbones})
    yield _gauge(series.BACKBONE_BYTES, {(): num_bytes})
    yield from _weights(state.weights)


def _jobs(jobs: JobFigures, ended: Mapping[tuple[str, ...], int], worker_ttl_s: float) -> Iterator[Metric]:
    yield _gauge(series.JOBS, {**ended, **jobs.numbers})
    yield _gauge(series.JOB_AGE, {(kind,): age for kind, age in ages_s(jobs.queued_since).items()})
    ages = list(ages_s({str(index): at for index, at in enumerate(jobs.beats)}).values())
    num_live = sum(age <= worker_ttl_s for age in ages)
    yield _gauge(series.WORKERS, {("live",): num_live, ("late",): len(ages) - num_live})
    if ages:
        yield _gauge(series.HEARTBEAT_AGE, {(): min(ages)})
