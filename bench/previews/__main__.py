"""The command line: fit and store the demo pack's colours, say how like they are, or measure what previews cost.

`fit` draws 48 images; `--write` replaces the file beside the pack. `throughput` prints one line a round and the median.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from app.modelpacks.pack import demo_pack_folder, read_pack, sha256_of
from app.services.images.previews import ColoursFile, shipped_colours
from app.services.inference.loading import ModelChoice, start_inference
from bench.previews.drawing import draw, fit, load_runner, psnr_db, specs_of
from bench.previews.throughput import Round, measure
from demo_pack.drawing import CLASSES

FITTED = 24
FIT_STEPS = 20


def fit_demo(write: bool) -> None:
    """Fit on the first images, judge on the others, and write the file if asked to."""
    pack = read_pack(demo_pack_folder())
    drawn = list(draw(load_runner(pack), specs_of(CLASSES, 2 * FITTED, FIT_STEPS)))
    colours = fit(drawn[::2])
    for name, latents in (("half of the steps", "half_way"), ("the last latents", "latents")):
        likeness = [psnr_db(colours, getattr(image, latents), image.small) for image in drawn[1::2]]
        print(f"{name}: mean {np.mean(likeness):.2f} dB, least {min(likeness):.2f} dB, {len(likeness)} images")
    if write:
        vae = next((pack.part("diffusion") / "vae").glob("*.safetensors"))
        ColoursFile(shipped_colours(pack), sha256_of(vae)).write(colours)


def compare(args: argparse.Namespace) -> list[Round]:
    """Start an engine, measure, and stop it."""
    with TemporaryDirectory() as folder:
        choice = ModelChoice(
            pack="demo",
            models_dir=Path(folder),
            overrides={},
            device="auto",
            dtype="auto",
            deterministic=None,
            gpu_graphs=True,
            gpu_compile=False,
            num_threads=args.threads,
            max_queue_size=64,
        )
        engine, inference = start_inference(choice)
        try:
            while any(status.state == "loading" for status in engine.status().values()):
                time.sleep(0.2)
            specs = specs_of(CLASSES, args.images, args.steps, args.speed)
            return asyncio.run(measure(inference, specs, args.every, args.rounds))
        finally:
            engine.close()
            inference.close()


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench.previews", description=__doc__)
    parser.add_argument("what", choices=["fit", "throughput"])
    parser.add_argument("--write", action="store_true", help="fit: replace the file beside the demo pack")
    parser.add_argument("--images", type=int, default=8, help="throughput: at once")
    parser.add_argument("--every", type=int, default=1, help="throughput: n of every n-th step")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=25, help="throughput: of each image")
    parser.add_argument("--threads", type=int, help="throughput: of a forward; default: all cores")
    parser.add_argument("--speed", choices=["exact", "balanced"], default="exact")
    args = parser.parse_args()
    if args.what == "fit":
        torch.set_num_threads(1)
        fit_demo(args.write)
        return
    rounds = compare(args)
    for each in rounds:
        print(
            f"off {each.off_s:.2f} s ({each.off_cpu_s:.2f} s CPU), on {each.on_s:.2f} s ({each.on_cpu_s:.2f} s CPU), "
            f"{each.previews} previews"
        )
    seconds = statistics.median(each.off_s / each.on_s - 1 for each in rounds)
    cpu = statistics.median(each.on_cpu_s / each.off_cpu_s - 1 for each in rounds)
    print(f"with previews: throughput {seconds:+.2%}, CPU {cpu:+.2%}; medians of {len(rounds)} rounds")
    print(f"load {os.getloadavg()[0]:.1f}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
