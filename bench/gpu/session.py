"""`python -m bench.gpu.session`: all measurements of a GPU in one call of at most ten minutes.

Runs the benchmarks one after the other, the most wanted first, each within the time that is left, and keeps their
outputs in a folder. Needs this repository and its environment, and no network. `--quick` tries the script in a minute
without a GPU: some measurements of tiny models, and of the servers nothing but their command line.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Part:
    """One benchmark.

    Attributes:
        name: Of the file that its output goes to.
        words: Behind `python -m`.
        least_s: Seconds below which it is not begun.
    """

    name: str
    words: tuple[str, ...]
    least_s: float


GPU_PARTS = (
    Part("images", ("bench.gpu", "--quick", "--parts", "G7", "G8", "G2"), 90),
    Part("generate", ("bench.generate", "--gpu", "--short"), 150),
    Part("forwards", ("bench.gpu", "--quick", "--parts", "G1", "G4", "G5", "G6"), 60),
)
QUICK_PARTS = (
    Part("images", ("bench.gpu", "--tiny", "--parts", "G7", "G8"), 5),
    Part("generate", ("bench.generate", "--gpu", "--short", "--help"), 5),
    Part("forwards", ("bench.gpu", "--tiny", "--parts", "G1", "G4"), 5),
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.session", description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.5, help="for everything")
    parser.add_argument("--quick", action="store_true", help="try the script, without a GPU")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build/bench/gpu")), help="a folder")
    return parser.parse_args(arguments)


def run(parts: Sequence[Part], seconds: float, folder: Path) -> dict[str, str]:
    """Run the parts that fit into the time; returns what became of each: `done`, `failed`, `cut off` or `left out`."""
    folder.mkdir(parents=True, exist_ok=True)
    ends_at = time.monotonic() + seconds
    outcomes = {}
    for part in parts:
        left_s = ends_at - time.monotonic()
        outcomes[part.name] = _run(part, left_s, folder) if left_s >= part.least_s else "left out"
        print(f"{part.name}: {outcomes[part.name]}, {ends_at - time.monotonic():.0f} s left", flush=True)
    return outcomes


def _run(part: Part, seconds: float, folder: Path) -> str:
    """Run one part in a process of its own, which is ended after `seconds`; what it has printed by then is kept."""
    path = folder / f"{part.name}.txt"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with path.open("wb") as output:
        command = [sys.executable, "-m", *part.words]
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            outcome = "done" if process.wait(seconds) == 0 else "failed"
        except subprocess.TimeoutExpired:
            process.terminate()  # the servers' benchmark ends its servers then
            process.wait()
            outcome = "cut off"
    print(path.read_text(errors="replace"), flush=True)
    return outcome


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything."""
    words = parse(arguments)
    if not words.quick and not torch.cuda.is_available():
        print("There is no GPU here; --quick tries the script without one.", file=sys.stderr)
        return 2
    outcomes = run(QUICK_PARTS if words.quick else GPU_PARTS, 60 * words.minutes, words.out)
    return 0 if set(outcomes.values()) == {"done"} else 1


if __name__ == "__main__":
    sys.exit(main())
