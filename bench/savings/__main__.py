"""The command line: measure what was asked for, print a table and one line of JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from app.engine.diffusion.runner import DiffusionRunner
from app.engine.kernels.cpu_diffusion import optimize_diffusion
from app.modelpacks.loading import load_diffusion
from app.modelpacks.pack import demo_pack_folder, read_pack
from bench.savings.decoding import compare_batches, compare_places, decoded
from bench.savings.steps import CPU, WAYS, are_equal, compare_mixed, compare_together, load_runners, prepared
from bench.savings.turns import Ratio, Rounds
from bench.speed.measure import make_specs

PARTS = ("together", "mixed", "batches", "places")
Lines = list[dict[str, Any]]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.savings", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    parser.add_argument("--rounds", type=int, default=9, help="of each comparison, 2 or more")
    parser.add_argument("--steps", type=int, default=20, help="of images that begin together")
    parser.add_argument("--images", type=int, nargs="+", default=[1, 4, 8], help="at a time")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, help="of a forward; default: torch's")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the seconds of all cores, on a machine with other work",
    )
    return parser.parse_args(arguments)


def rounds_of(words: argparse.Namespace) -> Rounds:
    """Return how often and by which clock ways are timed."""
    return Rounds(words.rounds, time.process_time if words.cpu_time else time.perf_counter)


def step_lines(runners: dict[str, DiffusionRunner], words: argparse.Namespace) -> Lines:
    """Measure what is kept between steps."""
    lines: Lines = []
    rounds = rounds_of(words)
    for count in words.images:
        if "together" in words.parts:
            ratios = compare_together(runners, count, words.steps, rounds)
            lines += _lines("together", f"{count} images, {words.steps} steps", ratios)
    if "mixed" in words.parts:
        count = max(words.images)
        lines += _lines("mixed", f"{count} at once", compare_mixed(runners, count, 3 * count, rounds))
    return [*lines, {"part": "bytes", "case": "all ways", "is_same": are_equal(runners, max(words.images))}]


def decoding_lines(runner: DiffusionRunner, vae: Any, words: argparse.Namespace) -> Lines:
    """Measure decoding."""
    lines: Lines = []
    specs = make_specs(("fox", "dog"), 8, "ddim", "exact")
    requests = prepared(runner, [replace(spec, num_inference_steps=500) for spec in specs])  # never at their end
    rounds = rounds_of(words)
    latents = torch.stack([request.state.latents for request in requests])
    if "batches" in words.parts:
        for line in compare_batches(vae, latents, [1, 2, 4, 8], rounds):
            lines.append({"part": "batches", "case": f"{line.size}", "is_same": line.is_same, **asdict(line.ratio)})
    if "places" in words.parts:
        decode = partial(decoded, vae, latents[:1].to(vae.dtype))
        for count in words.images:
            step = partial(runner.step, requests[:count])
            ratios = compare_places(step, decode, 2, 2, rounds)
            lines += _lines("places", f"2 steps of {count} images, 2 pictures", ratios)
    return lines


def _lines(part: str, case: str, ratios: dict[str, Ratio]) -> Lines:
    return [{"part": part, "case": case, "way": way, **asdict(ratio)} for way, ratio in ratios.items()]


def render(lines: Lines) -> str:
    """Set a line for each figure."""

    def text(line: dict[str, Any]) -> str:
        head = f"{line['part']:<10} {line['case']:<32} {line.get('way', ''):<28}"
        same = {True: "same bytes", False: "OTHER BYTES", None: ""}[line.get("is_same")]
        if "ratio" not in line:
            return f"{head} {same}"
        return (
            f"{head} {line['seconds']:8.3f} s  x {line['ratio']:.3f} ({line['low']:.3f} to {line['high']:.3f}) {same}"
        )

    return "\n".join(map(text, lines))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure."""
    words = parse(arguments)
    torch.set_num_threads(words.threads or torch.get_num_threads())
    parts = load_diffusion(read_pack(demo_pack_folder()), CPU, getattr(torch, words.dtype))
    runners = load_runners(parts)
    optimize_diffusion(parts.vae.decoder)
    lines = step_lines(runners, words) if {"together", "mixed"} & set(words.parts) else []
    if {"batches", "places"} & set(words.parts):
        lines += decoding_lines(runners[WAYS[-1]], parts.vae, words)
    print(render(lines))
    threads = torch.get_num_threads()
    print(json.dumps({"bench": "savings", "dtype": words.dtype, "threads": threads, "lines": lines}))
    return 0 if all(line.get("is_same", True) for line in lines if line["part"] == "bytes") else 1


if __name__ == "__main__":
    sys.exit(main())
