"""The command line: draw, plant, filter by each rule, print a table and one line of JSON; 1 if a target is missed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from app.modelpacks.pack import demo_pack_folder
from bench.demo_pack.generation import Studio, progress
from bench.demo_pack.loading import Pack, load_pack
from bench.demo_pack.metrics import share
from bench.demo_pack.table import Figure, as_json, render
from bench.filter.planted import CLASSES, RECIPES, Planted, plant
from bench.filter.rules import Kept, datadreamer, ours

REMOVED, KEPT = 0.95, 0.90
BATCHES = (1, 8)


def compare(pack: Pack, name: str, planted: Planted) -> list[Figure]:
    """Measure every rule on one set; ours has targets, and what it got wrong is told on standard error."""
    kept = ours(pack, planted)
    tell_the_rest(name, planted, kept)
    figures = figures_of(f"{name}: ours", planted, kept, REMOVED, KEPT)
    for batch in BATCHES:
        rule = f"{name}: DataDreamer, batch of {batch}"
        figures += figures_of(rule, planted, datadreamer(pack, planted, batch))
    return figures


def figures_of(
    name: str, planted: Planted, kept: Kept, removed_target: float | None = None, kept_target: float | None = None
) -> list[Figure]:
    """Return the share of planted pictures removed and of good ones kept."""
    is_planted = np.array(planted.is_planted)
    return [
        Figure(f"{name}: planted removed", share(~kept[is_planted]), removed_target),
        Figure(f"{name}: good kept", share(kept[~is_planted]), kept_target),
    ]


def tell_the_rest(name: str, planted: Planted, kept: Kept) -> None:
    """Name the pictures that our rule got wrong."""
    for row, (label, is_planted) in enumerate(zip(planted.labels, planted.is_planted, strict=True)):
        if kept[row] == is_planted:
            what = "planted, kept" if is_planted else "good, removed"
            print(f"  {name} {row}: {what}, labelled {CLASSES[label.class_index]}", file=sys.stderr)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.filter", description="Compare filters on a planted set.")
    parser.add_argument("--workdir", type=Path, default=Path("build/filter"), help="where drawn pictures are kept")
    parser.add_argument("--per-class", type=int, default=20, help="pictures of each of the six classes, even")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps")
    return parser.parse_args()


def main() -> int:
    """Measure and print."""
    args = parse()
    started = time.perf_counter()
    pack = load_pack(demo_pack_folder())
    studio = Studio(pack, args.workdir)
    figures: list[Figure] = []
    for name in RECIPES:
        planted = plant(studio, name, per_class=args.per_class, steps=args.steps)
        figures += compare(pack, name, planted)
    progress("filter", time.perf_counter() - started)
    print(render(figures))
    print(json.dumps({"revision": pack.revision, "per_class": args.per_class, "figures": as_json(figures)}))
    return int(any(figure.verdict not in ("", "ok") for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
