"""`python -m bench.precision`: the demo pack's images in bfloat16 beside those in float32, a table and a line of JSON.

The same prompts, seeds and noise schedulers in both number formats: how alike the pictures are, and what CLIP and a
judge of its own training say of them. Draws in this process with the node's own engine, without HTTP. Images are kept
in the working folder, so that an interrupted run continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from app.image_spec import ImageSpec
from app.modelpacks.pack import demo_pack_folder
from bench.demo_pack.judge import judge_drawings, train_judge
from bench.demo_pack.loading import load_pack
from bench.from_prompts.drawing import Artist
from bench.speed.__main__ import NOISE_SCHEDULERS, judge
from bench.speed.measure import Comparison, compare, make_specs


def drawn(folder: Path, dtype: torch.dtype, specs: Sequence[ImageSpec]) -> list[Image.Image]:
    """Draw images with the demo pack in a number format, or find those that were drawn before."""
    pack = load_pack(demo_pack_folder())
    for part in (pack.pipeline.unet, pack.pipeline.vae, pack.pipeline.text_encoder):
        part.to(dtype)
    return Artist(pack, folder / str(dtype).removeprefix("torch.")).images(specs)


def measure(args: argparse.Namespace) -> list[Comparison]:
    """Compare the two formats with each noise scheduler; `balanced` of a comparison is bfloat16."""
    drawings = judge_drawings(args.workdir, torch.get_num_threads(), args.judge_drawings)
    pack = load_pack(demo_pack_folder())
    model = train_judge(drawings, pack.classes, args.workdir / "report", args.judge_steps)
    comparisons = []
    for scheduler in NOISE_SCHEDULERS:
        specs = make_specs(pack.classes, args.prompts, scheduler, "exact")
        single = drawn(args.workdir / "precision", torch.float32, specs)
        half = drawn(args.workdir / "precision", torch.bfloat16, specs)
        judged = judge(pack, model, specs, single), judge(pack, model, specs, half)
        comparisons.append(compare(specs, specs, (single, half), judged))
    return comparisons


def render(comparisons: Sequence[Comparison]) -> str:
    """Lay out the table: float32's figures, and bfloat16's change with its 95 % interval."""
    head = f"{'50 steps':<10} {'images':>6} {'PSNR dB':>8} {'least':>6}"
    lines = [f"{head} {'CLIP score':>22} {'CLIP class':>22} {'judge':>22}"]
    for each in comparisons:
        pairs = (each.clip_score, each.clip_class, each.judge)
        figures = " ".join(f"{f'{pair.exact:.3f} {pair.change:+.3f} ± {pair.margin:.3f}':>22}" for pair in pairs)
        alike = f"{each.psnr_db:>8.2f} {each.lowest_psnr_db:>6.1f}"
        lines.append(f"{each.scheduler:<10} {each.prompts:>6} {alike} {figures}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.precision", description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("build/demo"), help="drawings, kept pictures, the judge")
    parser.add_argument("--prompts", type=int, default=64, help="images of each noise scheduler and format, 2 or more")
    parser.add_argument("--judge-drawings", type=int, default=12_000, help="a multiple of 250")
    parser.add_argument("--judge-steps", type=int, default=2400, help="steps that the judge is trained for")
    return parser.parse_args()


def main() -> int:
    """Run it."""
    comparisons = measure(parse())
    print(render(comparisons))
    print(json.dumps({"bench": "precision", "comparisons": [each.as_json() for each in comparisons]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
