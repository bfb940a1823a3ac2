"""`python -m demo_pack.build STAGE`: one stage of the build, or all of them in order.

Each training stage can be interrupted at any point and continues from its checkpoint to the same weights. `few-step` is
not one of `all`: it starts from the shipped pack and adds to it. Run it with OMP_NUM_THREADS set to the number of
cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from app.modelpacks.pack import demo_pack_folder
from demo_pack.build import classifier, clip, decoder, diffusion, drawings, few_step, guidance, pack, vae

TRAINERS: dict[str, Callable[[Path, int | None], None]] = {
    "vae": vae.train_vae,
    "decoder": decoder.train_decoder,
    "diffusion": diffusion.train_diffusion,
    "guidance": guidance.train_guidance,
    "clip": clip.train_clip,
    "classifier": classifier.train_classifier,
}
STAGES = ("draw", *TRAINERS, "pack")


def run(stage: str, workdir: Path, steps: int | None) -> None:
    """Run one stage."""
    if stage == few_step.STAGE:
        few_step.train_few_step(workdir, demo_pack_folder(), steps)
    elif stage == "draw":
        drawings.draw_all(workdir)
    elif stage == "pack":
        manifest = pack.write_pack(workdir)
        sys.stdout.write(f"revision {manifest['revision']}, {manifest['total_bytes']} bytes\n")
    else:
        TRAINERS[stage](workdir, steps)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m demo_pack.build", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all", few_step.STAGE])
    parser.add_argument("--workdir", type=Path, default=Path("build/demo"), help="drawings and checkpoints")
    parser.add_argument("--steps", type=int, help="of a training stage, instead of its recipe's")
    args = parser.parse_args()
    for stage in STAGES if args.stage == "all" else (args.stage,):
        run(stage, args.workdir, args.steps)


if __name__ == "__main__":
    main()
