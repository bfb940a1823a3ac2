"""The command line: draw at both speeds, judge, print the table and one line of JSON; write the manifest if asked to.

Images are kept in the working folder, so that an interrupted run continues. Progress goes to standard error. The judge
is that of `bench.demo_pack`, an architecture, seed and drawings of its own; its first run draws and trains for minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from app.image_spec import ImageSpec
from app.modelpacks.pack import demo_pack_folder
from app.step_rows import FORECAST
from bench.demo_pack.generation import progress
from bench.demo_pack.judge import judge_drawings, judge_votes, train_judge
from bench.demo_pack.loading import Pack, load_pack
from bench.demo_pack.metrics import top_k
from bench.demo_pack.reading import clip_probabilities, clip_similarity
from bench.from_prompts.drawing import Artist
from bench.speed.measure import Comparison, Judged, compare, make_specs

NOISE_SCHEDULERS = ("pndm", "ddim", "dpmpp_2m")
MIN_PSNR_DB = 40.0
MAX_ROWS_SHARE = 0.45


def judge(pack: Pack, model: nn.Module, specs: Sequence[ImageSpec], images: Sequence[Image.Image]) -> Judged:
    """Ask CLIP and the judge about the images of one speed."""
    wanted = [index % len(pack.classes) for index in range(len(specs))]
    likeness = clip_similarity(pack, images, [spec.prompt for spec in specs])
    return Judged(
        clip_scores=100 * np.clip(np.diag(likeness), 0, None),
        clip_hits=np.asarray(top_k(clip_probabilities(pack, images, pack.classes), wanted), np.float64),
        judge_hits=np.asarray(top_k(judge_votes(model, list(images)), wanted), np.float64),
    )


def measure(args: argparse.Namespace) -> tuple[str, list[Comparison]]:
    """Measure each noise scheduler; returns the pack's revision and the comparisons."""
    drawings = judge_drawings(args.workdir, torch.get_num_threads(), args.judge_drawings)
    pack = load_pack(demo_pack_folder())
    model = train_judge(drawings, pack.classes, args.workdir / "report", args.judge_steps)
    artist = Artist(pack, args.workdir / "speed" / FORECAST)
    comparisons = []
    for scheduler in NOISE_SCHEDULERS:
        started = time.perf_counter()
        exact, balanced = (make_specs(pack.classes, args.prompts, scheduler, speed) for speed in ("exact", "balanced"))
        images = artist.images(exact), artist.images(balanced)
        judged = judge(pack, model, exact, images[0]), judge(pack, model, balanced, images[1])
        comparisons.append(compare(exact, balanced, images, judged))
        progress(scheduler, time.perf_counter() - started)
    return pack.revision, comparisons


def render(comparisons: Sequence[Comparison]) -> str:
    """Lay out the table: one line a noise scheduler, and whether it reaches what `balanced` promises."""
    lines = [
        f"{'50 steps':<10} {'images':>6} {'rows':>10} {'share':>6} {'PSNR dB':>8} {'least':>6} "
        f"{'CLIP score, change':>26} {'CLIP class':>14} {'judge':>14}"
    ]
    for each in comparisons:
        score = each.clip_score
        is_reached = (
            each.psnr_db >= MIN_PSNR_DB
            and each.rows <= MAX_ROWS_SHARE * each.rows_exact
            and not any(pair.is_loss for pair in (score, each.clip_class, each.judge))
        )
        lines.append(
            f"{each.scheduler:<10} {each.prompts:>6} {f'{each.rows} / {each.rows_exact}':>10} "
            f"{each.rows / each.rows_exact:>6.1%} {each.psnr_db:>8.2f} {each.lowest_psnr_db:>6.1f} "
            f"{f'{score.exact:.2f} {score.change:+.3f} ± {score.margin:.3f}':>26} "
            f"{f'{each.clip_class.exact:.3f} {each.clip_class.change:+.3f}':>14} "
            f"{f'{each.judge.exact:.3f} {each.judge.change:+.3f}':>14}  {'ok' if is_reached else 'MISSED'}"
        )
    return "\n".join(lines)


def write_speeds(folder: Path, revision: str, comparisons: Sequence[Comparison]) -> None:
    """Put the figures into the pack's manifest, whose revision is that of its weights and stays.

    Raises:
        ValueError: The pack was replaced while it was measured.
    """
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    if manifest["revision"] != revision:
        raise ValueError(f"the pack is of revision {manifest['revision']} by now, not {revision}")
    manifest["quality"].setdefault("speeds", {})["balanced"] = [each.for_manifest() for each in comparisons]
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(manifest, indent=2) + "\n")
    os.replace(partial, path)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.speed", description="Compare `balanced` with `exact`.")
    parser.add_argument("--workdir", type=Path, default=Path("build/demo"), help="drawings, kept pictures, the judge")
    parser.add_argument("--prompts", type=int, default=64, help="images of each noise scheduler and speed, 2 or more")
    parser.add_argument("--write", action="store_true", help="also into the pack's manifest")
    parser.add_argument("--judge-drawings", type=int, default=12_000, help="a multiple of 250")
    parser.add_argument("--judge-steps", type=int, default=2400, help="steps that the judge is trained for")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write."""
    os.nice(max(0, 15 - os.nice(0)))
    args = parse()
    revision, comparisons = measure(args)
    if args.write:
        write_speeds(demo_pack_folder(), revision, comparisons)
    print(render(comparisons))
    print(json.dumps({"revision": revision, "forecast": FORECAST, "speeds": [each.as_json() for each in comparisons]}))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
