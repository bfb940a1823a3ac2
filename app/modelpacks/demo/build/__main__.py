"""`python -m app.modelpacks.demo.build STAGE`: one stage of the build, or all of them in order.

Each training stage takes a budget of minutes, can be cut at any point and goes on from its checkpoint.
Run it with OMP_NUM_THREADS set to the number of cores.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from app.modelpacks.demo.build import classifier, clip, diffusion, drawings, pack, report, vae

TRAINERS = {
    "vae": (vae.train, 25.0),
    "diffusion": (diffusion.train, 45.0),
    "clip": (clip.train, 8.0),
    "classifier": (classifier.train, 8.0),
}
STAGES = ("draw", *TRAINERS, "pack", "report")


def run(stage: str, workdir: Path, minutes: float | None, drawings_count: int, sheets: Path) -> None:
    """Run one stage."""
    if stage == "draw":
        drawings.draw_all(workdir, drawings_count)
    elif stage == "pack":
        manifest = pack.write_pack(workdir)
        sys.stdout.write(f"revision {manifest['revision']}, {manifest['total_bytes']} bytes\n")
    elif stage == "report":
        report.report(pack.PACK, workdir, sheets)
    else:
        train, default = TRAINERS[stage]
        train(workdir, default if minutes is None else minutes)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m app.modelpacks.demo.build", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--workdir", type=Path, default=Path("build/demo"), help="drawings and checkpoints")
    parser.add_argument("--minutes", type=float, help="budget of a training stage, earlier runs counted in")
    parser.add_argument("--drawings", type=int, default=24000, help="training drawings, a multiple of 250")
    parser.add_argument("--sheets", type=Path, help="where the report puts its sample sheets")
    args = parser.parse_args()
    sheets = args.sheets or args.workdir / "sheets"
    for stage in STAGES if args.stage == "all" else (args.stage,):
        run(stage, args.workdir, args.minutes, args.drawings, sheets)


if __name__ == "__main__":
    main()
