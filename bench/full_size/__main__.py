"""The command line: build the model once, take steps by turns, print a table and one line of JSON."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch.profiler import ProfilerActivity, profile

from bench.environments import peer_python
from bench.full_size.ways import OpenVino, Way, compiled, diffusers_layers, ours
from bench.gpu.models import Models, build_models
from bench.savings.turns import Ratio, Rounds, by_turns

WAYS = ("ours", "diffusers", "compiled", "openvino")
TARGET = 1.25  # of OpenVINO's time


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.full_size", description=__doc__)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="the first is the base; all")
    parser.add_argument("--rounds", type=int, default=3, help="2 or more")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the seconds of all cores, on a machine with other work"
    )
    parser.add_argument("--profile", type=int, metavar="N", help="print the N operators that take longest in our step")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to try the script in seconds")
    return parser.parse_args(arguments)


def measure(models: Models, words: argparse.Namespace) -> dict[str, Ratio]:
    """Take steps in each way by turns."""
    makers = {"ours": ours, "diffusers": diffusers_layers, "compiled": compiled}
    with contextlib.ExitStack() as running:
        ways: dict[str, Way] = {}
        for name in words.ways:
            if name == "openvino":
                worker = OpenVino(peer_python("openvino"), models.dtype, torch.get_num_threads(), is_tiny=words.tiny)
                ways[name] = running.enter_context(worker)
            else:
                ways[name] = makers[name](models)
        return by_turns(ways, Rounds(words.rounds, time.process_time if words.cpu_time else time.perf_counter))


def operators(models: Models, count: int) -> str:
    """Profile one of our steps."""
    way = ours(models)
    way()
    with profile(activities=[ProfilerActivity.CPU]) as taken:
        way()
    averages = taken.key_averages()
    table: str = averages.table(sort_by="self_cpu_time_total", row_limit=count, max_name_column_width=48)
    return table


def render(ratios: dict[str, Ratio]) -> str:
    """Set a line for each way, and one for the target."""
    lines = [
        f"{name:<10} {ratio.seconds:8.2f} s  x {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
        for name, ratio in ratios.items()
    ]
    if {"ours", "openvino"} <= set(ratios):
        share = ratios["ours"].seconds / ratios["openvino"].seconds
        lines.append(f"ours / OpenVINO: {share:.2f}, target {TARGET}: {'ok' if share <= TARGET else 'MISSED'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure."""
    words = parse(arguments)
    if words.cpu_time and "openvino" in words.ways:
        print("OpenVINO's seconds are of another process; name other --ways with --cpu-time.", file=sys.stderr)
        return 2
    torch.set_num_threads(words.threads or torch.get_num_threads())
    models = build_models(torch.device("cpu"), getattr(torch, words.dtype), is_tiny=words.tiny)
    if words.profile:
        print(operators(models, words.profile), flush=True)
        return 0
    ratios = measure(models, words)
    print(render(ratios))
    facts = {
        "bench": "full_size",
        "dtype": words.dtype,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "has_amx": torch.cpu._is_amx_tile_supported(),
        "load": os.getloadavg()[0],
    }
    print(json.dumps({**facts, "ways": {name: asdict(ratio) for name, ratio in ratios.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
