"""The command line: draw at both speeds, judge, print the table, write the sheet, and the manifest if asked to.

Images are kept in the working folder, so that an interrupted run continues. Progress goes to standard error. The judge
is that of `bench.demo_pack`, an architecture, seed and drawings of its own; its first run draws and trains for minutes.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from app.modelpacks.pack import demo_pack_folder, read_pack
from bench.demo_pack import sheets
from bench.demo_pack.generated import right_colours
from bench.demo_pack.judge import judge_drawings, judge_votes, train_judge
from bench.demo_pack.loading import Pack, load_pack
from bench.demo_pack.metrics import Scores, top_k
from bench.demo_pack.reading import clip_probabilities, clip_similarity
from bench.fast.drawing import Artist
from bench.fast.measure import Measured, Wanted, for_manifest, make_specs, render, wishes
from bench.speed.measure import psnr_db

TIMED = 20
COLUMNS = 9


def judge(
    pack: Pack, model: nn.Module | None, wanted: Sequence[Wanted], prompts: Sequence[str], images: list[Image.Image]
) -> dict[str, Scores]:
    """Ask CLIP and the judge about the images of one speed; one value an image for each figure."""
    names = [each.class_name for each in wanted]
    classes = [pack.classes.index(name) for name in names]
    likeness = clip_similarity(pack, images, prompts)
    scores: dict[str, Any] = {
        "clip_class_accuracy": top_k(clip_probabilities(pack, images, pack.classes), classes),
        "clip_colour_accuracy": right_colours(pack, images, names, [each.colour for each in wanted]),
        "clip_score": 100 * np.clip(np.diag(likeness), 0, None),
    }
    if model is not None:
        scores["judge_accuracy"] = top_k(judge_votes(model, images), classes)
    return {name: np.asarray(values, np.float32) for name, values in scores.items()}


def sheet(exact: Sequence[Image.Image], fast: Sequence[Image.Image]) -> Image.Image:
    """Lay out pairs of rows: 50 exact steps above `fast`."""
    pairs = zip(sheets.in_rows(exact, COLUMNS), sheets.in_rows(fast, COLUMNS), strict=True)
    return sheets.page([row for pair in pairs for row in pair])


def write_speed(folder: Path, sha256: str, entry: dict[str, Any]) -> None:
    """Put the figures into the pack's manifest, whose revision stays.

    Raises:
        ValueError: The few-step weights were replaced while they were measured.
    """
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if manifest["few_step"]["file"]["sha256"] != sha256:
        raise ValueError("the few-step weights are others by now")
    manifest["quality"].setdefault("speeds", {})["fast"] = [entry]
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(manifest, indent=2) + "\n")
    os.replace(partial, path)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.fast", description="Compare `fast` with 50 exact steps.")
    parser.add_argument("--workdir", type=Path, default=Path("build/demo"), help="drawings, kept pictures, the judge")
    parser.add_argument("--prompts", type=int, default=144, help="images of each speed, 2 or more")
    parser.add_argument("--write", action="store_true", help="also into the pack's manifest")
    parser.add_argument("--sheet", type=Path, help="a JPEG of the first 36 pairs")
    parser.add_argument("--judge-drawings", type=int, default=12_000, help="a multiple of 250; 0: no judge")
    parser.add_argument("--judge-steps", type=int, default=2400, help="steps that the judge is trained for")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    args = parse()
    folder = demo_pack_folder()
    own, pack = read_pack(folder), load_pack(folder)
    if own.few_step is None:
        raise SystemExit("The pack has no few-step weights: run `make demo-pack-fast`.")
    model = None
    if args.judge_drawings:
        drawings = judge_drawings(args.workdir, torch.get_num_threads(), args.judge_drawings)
        model = train_judge(drawings, pack.classes, args.workdir / "report", args.judge_steps)
    artist = Artist(own, args.workdir / "fast")
    wanted = wishes(pack.classes, args.prompts)
    specs = [make_specs(wanted, pack.classes, settings) for settings in (None, own.few_step.settings)]
    images = [artist.images(each) for each in specs]
    prompts = [spec.prompt for spec in specs[0]]
    exact, fast = (judge(pack, model, wanted, prompts, each) for each in images)
    measured = [Measured.of(name, exact[name], fast[name]) for name in exact]
    seconds = artist.seconds(specs[1][:TIMED])
    alike = float(np.mean([psnr_db(*pair) for pair in zip(*images, strict=True)]))
    rows = sum(specs[1][0].step_rows), sum(specs[0][0].step_rows)
    entry = {"prompts": args.prompts, **for_manifest(own.few_step.settings, rows, measured, alike, seconds)}
    if args.sheet:
        args.sheet.parent.mkdir(parents=True, exist_ok=True)
        sheet(*(each[: 4 * COLUMNS] for each in images)).save(args.sheet, "JPEG", quality=80, optimize=True)
    if args.write:
        write_speed(folder, own.few_step.file.sha256, entry)
    print(render(measured, seconds, args.prompts))
    print(json.dumps({"revision": own.revision, "few_step_sha256": own.few_step.file.sha256, **entry}))


if __name__ == "__main__":
    main()
