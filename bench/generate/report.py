"""Figures from what was measured: the table of all loads, the targets with their verdicts, and the JSON of both."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from bench.demo_pack.table import Figure, as_json
from bench.generate.load import Run
from bench.generate.measure import Results
from bench.generate.plan import BUSY, LATE, POISSON
from bench.generate.servers import BALANCED, OURS

PERCENTILES = (50, 95, 99)


def summarize(runs: Sequence[Run]) -> dict[str, float]:
    """Sum up the repeats of one load: throughput as median, least and most, latencies of all of them together.

    Returns:
        `images_s`, `least_images_s`, `most_images_s`; `p50_s` and the like, without those where nothing was answered;
        `failures`.
    """
    rates = [run.throughput for run in runs]
    latencies = [latency for run in runs for latency in run.latencies]
    summary = {"images_s": statistics.median(rates), "least_images_s": min(rates), "most_images_s": max(rates)}
    if latencies:
        summary |= {f"p{rank}_s": float(np.percentile(latencies, rank)) for rank in PERCENTILES}
    return {**summary, "failures": sum(run.failures for run in runs)}


def summarize_all(results: Results) -> dict[str, dict[str, dict[str, float]]]:
    """Sum up by server and load."""
    return {
        server: {load: summarize(runs) for load, runs in by_load.items()} for server, by_load in results.runs.items()
    }


def judge(results: Results) -> list[Figure]:
    """Compare with the targets; a ratio is ours over theirs, the median of those of all rounds."""
    mixed, identical, poisson = BUSY["mixed"], BUSY["identical"], POISSON.format(0.9)
    peers = [name for name in results.runs if name not in (OURS, BALANCED)]
    failures = sum(run.failures for name in (OURS, BALANCED) for runs in results.runs[name].values() for run in runs)
    alone = statistics.median(results.alone_s) / statistics.median(results.direct_s)

    def throughput(ours: str, load: str) -> float:
        return _paired(results, ours, load, peers, lambda run: run.throughput, max)

    def latency(ours: str, load: str, names: Sequence[str], rank: float) -> float:
        return _paired(results, ours, load, names, lambda run: run.percentile(rank), min)

    waits = {ours: latency(ours, poisson, peers, 95) for ours in (OURS, BALANCED)}
    late = latency(OURS, LATE, ["lock"], 50)
    return [
        Figure(f"images/s, {mixed}, exact, over the best peer's", throughput(OURS, mixed), 2.0, "x"),
        Figure(f"images/s, {mixed}, balanced, over the best peer's", throughput(BALANCED, mixed), 2.0, "x"),
        Figure(f"images/s, {identical}, exact, over the best peer's", throughput(OURS, identical), 1.0, "x"),
        Figure(f"p95 latency, {poisson}, exact, over the best peer's", waits[OURS], 0.5, "x", True),
        Figure(f"p95 latency, {poisson}, balanced, over the best peer's", waits[BALANCED], 0.5, "x", True),
        Figure(f"p50 latency, {LATE}, exact, over the lock server's", late, 1 / 3, "x", True),
        Figure("one guided request alone, exact, over the direct call", alone, 1.03, "x", True),
        Figure("failed requests of ours", failures, 0, "", True),
    ]


def render_loads(sums: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Lay out every load of every server, load by load."""
    head = ("load", "server", "images/s", "(least-most)", *(f"p{rank} s" for rank in PERCENTILES), "failed")
    rows = [head, *_rows(sums)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        left = [f"{cell:<{width}}" for cell, width in zip(row[:2], widths[:2], strict=True)]
        right = [f"{cell:>{width}}" for cell, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(left + right))
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(lines)


def to_json(results: Results, figures: Sequence[Figure], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give everything for a program to read."""
    return {
        "bench": "generate",
        **facts,
        "tuning_images_s": results.tuning,
        "chosen": results.chosen,
        "capacity_images_s": results.capacity,
        "alone_s": {
            "node": statistics.median(results.alone_s),
            "pipeline": statistics.median(results.direct_s),
            "pairs": len(results.alone_s),
        },
        "loads": summarize_all(results),
        "targets": as_json(figures),
    }


def _rows(sums: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Iterator[tuple[str, ...]]:
    for load in sums[OURS]:
        for server, loads in sums.items():
            run = loads[load]
            spread = f"({run['least_images_s']:.2f}-{run['most_images_s']:.2f})"
            latencies = (f"{run[key]:.2f}" if (key := f"p{rank}_s") in run else "-" for rank in PERCENTILES)
            yield load, server, f"{run['images_s']:.2f}", spread, *latencies, f"{run['failures']:.0f}"


def _paired(
    results: Results,
    name: str,
    load: str,
    peers: Sequence[str],
    measure: Callable[[Run], float],
    choose: Callable[..., float],
) -> float:
    """Divide ours by the best of the peers' of the same round, which the machine's speed is the same for.

    Returns:
        The median of all rounds; not a number, which passes no target, where one of the two was not measured.
    """
    rounds = zip(*(results.runs[name][load] for name in peers), strict=True)
    theirs = [choose((measure(run) for run in runs if run.latencies), default=math.nan) for runs in rounds]
    pairs = zip((measure(run) for run in results.runs[name][load]), theirs, strict=True)
    return statistics.median(ours / best if best else math.nan for ours, best in pairs)
