"""The command line: draw, make images of the shots, train, print a table and one line of JSON; 1 if it is no gain."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from app.modelpacks.pack import demo_pack_folder
from app.modelpacks.photo import PHOTO
from app.schemas.recipes import DEFAULT_SHOT_STRENGTH
from bench.demo_pack.generation import progress
from bench.demo_pack.loading import load_pack
from bench.from_prompts.drawing import Artist
from bench.from_prompts.features import make_readers
from bench.shots.material import STEPS, Pictures, drawings_of, make_images
from bench.shots.measure import Labelled, Line, compare

# Animals that look alike.
CLASSES = ("fox", "dog", "cat", "rabbit", "bird")
SHOTS = 5
# The pack's training and its other tests use the seeds 1 to 7. A run with --seed N has shots of 100 + N and test
# drawings of 200 + N: the strength was chosen with --seed 1.
SHOT_SEED, TEST_SEED = 100, 200


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line, or the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.shots", description="Variants of five shots a class against the five."
    )
    parser.add_argument("--workdir", type=Path, default=Path("build/shots"), help="where images are kept")
    parser.add_argument("--per-class", type=int, default=20, help="generated images of each class")
    parser.add_argument("--test", type=int, default=120, help="test drawings of each class")
    parser.add_argument("--seed", type=int, default=2, help="of shots, test drawings and recipe; 1 chose the strength")
    parser.add_argument(
        "--strengths", type=float, nargs="+", default=[DEFAULT_SHOT_STRENGTH], help="the first one is judged"
    )
    parser.add_argument("--prompts", action="store_true", help="also the shots with images of the prompts alone")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if shots and their variants at the first strength are better than the shots alone."""
    args = parse(arguments)
    started_s = time.perf_counter()
    pack = load_pack(demo_pack_folder())
    read = make_readers(pack, args.workdir / "photo")[PHOTO]

    def features(pictures: Pictures) -> Labelled:
        return Labelled(np.asarray(read(pictures.images)), pictures.labels)

    shots = drawings_of(SHOT_SEED + args.seed, CLASSES, SHOTS)
    test = features(drawings_of(TEST_SEED + args.seed, CLASSES, args.test))
    arms = {"shots": features(shots)}
    progress("drawings and their features", time.perf_counter() - started_s)
    artist = Artist(pack, args.workdir / "images")
    for strength in args.strengths:
        made = make_images(artist, CLASSES, shots, strength=strength, per_class=args.per_class, seed=args.seed)
        variants = features(made)
        # Each shot as often as it has variants: half of the weight is real, as in DA-Fusion (arXiv:2302.07944).
        arms[f"shots and variants at {strength:g}"] = arms["shots"].repeated(args.per_class // SHOTS) + variants
        arms[f"variants at {strength:g} alone"] = variants
    if args.prompts:
        made = make_images(artist, CLASSES, None, strength=1.0, per_class=args.per_class, seed=args.seed)
        arms["shots and prompts"] = arms["shots"].repeated(args.per_class // SHOTS) + features(made)
    lines = compare(arms, test)
    _print(lines)
    progress("shots", time.perf_counter() - started_s)
    facts = {"revision": pack.revision, "seed": args.seed, "per_class": args.per_class, "steps": STEPS}
    print(json.dumps({"bench": "shots", **facts, "lines": [asdict(line) for line in lines]}))
    gain = lines[1].gain
    return int(gain is None or not gain.is_better)


def _print(lines: Sequence[Line]) -> None:
    num_test = lines[0].accuracy.n
    print(f"{'/'.join(CLASSES)}: {num_test} held-out drawings; 95 % intervals")
    print("| trained on | images | top-1 | minus shots, paired |\n| --- | --- | --- | --- |")
    for line in lines:
        top = f"{line.accuracy.value:.3f} ({line.accuracy.low:.3f} ... {line.accuracy.high:.3f})"
        found = line.gain.difference if line.gain else None
        gain = f"{found.value:+.3f} ({found.low:+.3f} ... {found.high:+.3f})" if found else ""
        print(f"| {line.name} | {line.num_train} | {top} | {gain} |")


if __name__ == "__main__":
    sys.exit(main())
