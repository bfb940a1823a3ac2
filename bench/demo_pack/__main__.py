"""The command line of the report: parse, measure part by part, print, and write where asked to.

Progress goes to standard error; the table and one line of JSON to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from app.modelpacks.pack import demo_pack_folder
from bench.demo_pack import drawings, judge, pages, probe, sheets, variations
from bench.demo_pack.generated import class_votes, generate_classes, measure_generated
from bench.demo_pack.generation import Studio, progress
from bench.demo_pack.loading import load_pack
from bench.demo_pack.table import Figure, Outcome, as_json, render

PUBLISHED_SHEETS = Path("docs/images/demo-pack")


class Report:
    """Collects the outcome of each part, in the order in which they are measured."""

    def __init__(self) -> None:
        """Begin empty."""
        self.figures: list[Figure] = []
        self.quality: dict[str, Any] = {}
        self.rows: dict[str, pages.Rows] = {}

    def add(self, section: str, sheet: str, measure: Callable[[], Outcome]) -> None:
        """Measure a part; its figures go to `section` of the manifest, its rows, if any, to the sheet of that name."""
        started = time.perf_counter()
        outcome = measure()
        progress(f"part {section}/{sheet}", time.perf_counter() - started)
        self.figures += outcome.figures
        self.quality.setdefault(section, {}).update(outcome.quality)
        if outcome.rows:
            self.rows[sheet] = outcome.rows


def measure(args: argparse.Namespace) -> tuple[str, Report]:
    """Measure every part of the shipped pack; returns its revision and the report."""
    workdir, processes, report = args.workdir, torch.get_num_threads(), Report()
    # Before any model is loaded: the drawing processes are forks of this one.
    held_out = drawings.held_out_drawings(workdir)
    for_judge = judge.judge_drawings(workdir, processes, args.judge_drawings)
    drawings.drawings_of(workdir, processes, ("fox", "dog", "cat", "rabbit"), args.probe_drawings)
    pack = load_pack(demo_pack_folder())
    studio = Studio(pack, workdir / "report" / "images")
    report.add("speed", "speed", lambda: variations.measure_speed(pack, studio))
    made = generate_classes(pack, studio, args.images_per_class)
    votes = class_votes(pack, made.images)
    report.add("generated", "generated", lambda: measure_generated(pack, made, votes))
    drawn = min(args.drawings, len(held_out.images))
    report.add("held_out_drawings", "held-out", lambda: drawings.measure_drawings(pack, held_out, drawn))
    report.add("held_out_drawings", "autoencoder", lambda: drawings.measure_autoencoder(pack, held_out, drawn))
    model = judge.train_judge(for_judge, pack.classes, workdir / "report", args.judge_steps)
    votes["judge"] = judge.judge_votes(model, made.images)
    report.add("judge", "judge", lambda: judge.measure_judge(model, held_out, drawn, pack.classes, made, votes))
    counts = probe.Counts(args.probe_train, args.probe_fresh, args.probe_drawings)
    report.add("probes", "probes", lambda: probe.measure_probes(pack, studio, workdir, processes, counts))
    report.add("noise_schedulers", "schedulers", lambda: variations.measure_noise_schedulers(pack, studio, made))
    report.add("negative_prompts", "negative", lambda: variations.measure_negative_prompts(pack, studio))
    report.add("sizes", "sizes", lambda: variations.measure_sizes(pack, studio))
    report.rows.update(pages.show_pages(pack, studio, made, votes))
    report.rows["drawings"] = pages.drawings_page(held_out, pack.classes)
    return pack.revision, report


def write_quality(folder: Path, revision: str, quality: dict[str, Any]) -> None:
    """Put the figures into the pack's manifest.

    Raises:
        ValueError: The pack was replaced while it was measured.
    """
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if manifest["revision"] != revision:
        raise ValueError(f"the pack is of revision {manifest['revision']} by now, not {revision}")
    partial = path.with_suffix(".partial")
    speeds = {name: manifest["quality"][name] for name in ("speeds",) if name in manifest["quality"]}  # by bench.speed
    partial.write_text(json.dumps({**manifest, "quality": {**quality, **speeds}}, indent=2) + "\n")
    os.replace(partial, path)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo_pack", description="Measure the shipped demo pack.")
    parser.add_argument("--workdir", type=Path, default=Path("build/demo"), help="drawings, kept pictures, the judge")
    parser.add_argument("--sheets", type=Path, help="where the sheets go (default: report/sheets in the workdir)")
    parser.add_argument("--write", action="store_true", help=f"also into the manifest and {PUBLISHED_SHEETS}")
    parser.add_argument("--images-per-class", type=int, default=20, help="generated pictures of each class")
    parser.add_argument("--drawings", type=int, default=1000, help="held-out drawings, 100 to 1000 in hundreds")
    parser.add_argument("--probe-train", type=int, default=40, help="pictures a class that a probe is trained on")
    parser.add_argument("--probe-fresh", type=int, default=100, help="fresh pictures a class that it is tested on")
    parser.add_argument("--probe-drawings", type=int, default=100, help="drawings a class that it is tested on")
    parser.add_argument("--judge-drawings", type=int, default=12_000, help="a multiple of 250")
    parser.add_argument("--judge-steps", type=int, default=2400, help="steps that the judge is trained for")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    args = parse()
    started = time.perf_counter()
    revision, report = measure(args)
    files = sheets.compress({name: sheets.page(rows) for name, rows in report.rows.items()})
    sheets.write(files, args.sheets or args.workdir / "report" / "sheets")
    result = {"revision": revision, "figures": as_json(report.figures), "quality": report.quality}
    (args.workdir / "report" / "report.json").write_text(json.dumps(result, indent=2) + "\n")
    if args.write:
        write_quality(demo_pack_folder(), revision, report.quality)
        sheets.write(files, PUBLISHED_SHEETS)
    progress("report", time.perf_counter() - started)
    print(render(report.figures))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
