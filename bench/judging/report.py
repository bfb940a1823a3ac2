"""Figures from what was measured: the table, the targets with their verdicts, and the JSON of both."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bench.demo_pack.table import Figure, as_json
from bench.judging.cases import Case, Who
from bench.judging.traffic import percentile_ms

MOST_OVERHEAD = 0.10


def summarize(case: Case) -> dict[Who, dict[str, float]]:
    """Sum up the rounds of each server: questions a second as the median, latencies of all of them together."""
    return {
        who: {
            "per_second": statistics.median(load.per_second for load in loads),
            "p50_ms": percentile_ms(loads, 50),
            "p99_ms": percentile_ms(loads, 99),
        }
        for who, loads in case.loads.items()
    }


def judge(cases: Sequence[Case]) -> list[Figure]:
    """Compare with the targets; a ratio is ours over the best peer's, and without a peer no number, which passes none.

    The overhead is taken round by round, so that what slows the machine for a while slows both. It is below
    zero where our layers, remade for the CPU, win more than all the rest costs.
    """
    figures = []
    for case in cases:
        sums = summarize(case)
        ours, peers = sums["ours"], [row for who, row in sums.items() if who != "ours"]
        rate = max((row["per_second"] for row in peers), default=np.nan)
        slowest = min((row["p99_ms"] for row in peers), default=np.nan)
        rounds = zip(case.bare_per_second, case.loads["ours"], strict=True)
        overhead = statistics.median(bare / load.per_second - 1 for bare, load in rounds)
        figures += [
            Figure(f"{case.name}: req/s, over the best peer's", ours["per_second"] / rate, case.least_ratio, "x"),
            Figure(f"{case.name}: p99, over the best peer's", ours["p99_ms"] / slowest, 1.0, "x", True),
            Figure(f"{case.name}: time over the forward alone", overhead, MOST_OVERHEAD, "%", True),
        ]
    return figures


def render_loads(cases: Sequence[Case]) -> str:
    """Lay out every server of every case."""
    lines = [f"{'':44} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}"]
    for case in cases:
        lines += [case.name, f"  {'(the forward alone)':42} {statistics.median(case.bare_per_second):8.2f}"]
        for who, row in summarize(case).items():
            name = case.settings[who]
            lines.append(f"  {name:42} {row['per_second']:8.2f} {row['p50_ms']:8.1f} {row['p99_ms']:8.1f}")
    return "\n".join(lines)


def to_json(cases: Sequence[Case], figures: Sequence[Figure], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give everything for a program to read."""
    return {
        "bench": "judging",
        **facts,
        "cases": {
            case.name: {
                "forward_per_second": [round(rate, 2) for rate in case.bare_per_second],
                "settings": case.settings,
                "rounds_per_second": {
                    who: [round(load.per_second, 2) for load in loads] for who, loads in case.loads.items()
                },
                "servers": {
                    who: {key: round(value, 2) for key, value in row.items()} for who, row in summarize(case).items()
                },
            }
            for case in cases
        },
        # JSON has no word for what is no number.
        "targets": [{key: None if value != value else value for key, value in row.items()} for row in as_json(figures)],
    }
