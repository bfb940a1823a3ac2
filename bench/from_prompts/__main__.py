"""The command line: draw, read features, train, print a table and one line of JSON; 1 if a target is missed."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import ImageOps

from app.modelpacks.pack import demo_pack_folder
from app.training.zero_shot import zero_shot_head
from bench.demo_pack.generation import progress
from bench.demo_pack.loading import load_pack
from bench.from_prompts.drawing import Artist, Plan, make_dataset_recipe
from bench.from_prompts.emoji import FOLDER, load_emoji
from bench.from_prompts.features import embed_texts, logit_scale, make_readers
from bench.from_prompts.material import draw, read_rows, rows_of
from bench.from_prompts.tasks import Line, Task, make_tasks, measure

# Part of the key of kept features: raise it when the views or a backbone change.
EDITION = 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line, or the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.from_prompts", description="Train on prompts, test on emoji."
    )
    parser.add_argument("--workdir", type=Path, default=Path("build/from_prompts"), help="where images are kept")
    parser.add_argument("--data", type=Path, default=FOLDER, help="folder of the test pictures")
    parser.add_argument("--per-class", type=int, default=20, help="generated images of each class")
    parser.add_argument("--steps", type=int, default=12, help="denoising steps")
    parser.add_argument("--seed", type=int, default=0, help="of the recipe")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 2 without the test pictures."""
    args = parse(arguments)
    if not args.data.is_dir():
        print(f"SKIPPED: the test pictures are absent ({args.data}). Nothing was measured.", file=sys.stderr)
        return 2
    started_s = time.perf_counter()
    pack = load_pack(demo_pack_folder())
    readers = make_readers(pack, args.workdir / "photo")
    plan = Plan(args.per_class, args.steps, args.seed)
    recipe = make_dataset_recipe(pack.classes, plan)
    texts = embed_texts(pack, recipe.filter.texts)
    zero_shot = zero_shot_head([row[None] for row in texts], logit_scale(pack))
    generated = draw(recipe, plan, Artist(pack, args.workdir / "images"), readers["clip"], zero_shot)
    facts = f"{pack.revision} {plan} {EDITION}"
    rows = read_rows(generated, readers, args.workdir / "features", hashlib.sha256(facts.encode()).hexdigest()[:16])
    test = load_emoji(args.data, pack.classes)
    features = {name: read(test.images) for name, read in readers.items()}
    mirrored = {name: read([ImageOps.mirror(image) for image in test.images]) for name, read in readers.items()}
    outcome: dict[str, object] = {"revision": pack.revision, **asdict(plan), "images": len(generated.images)}
    outcome |= {"kept": round(float(generated.is_kept.mean()), 4), "still_rejected": generated.missing}
    passed = True
    for task in make_tasks(pack.classes):
        indexes = [pack.classes.index(name) for name in task.class_names]
        head = zero_shot_head([texts[[index]] for index in indexes], logit_scale(pack))
        chosen = np.isin(test.labels, indexes)
        labels = np.array([indexes.index(label) for label in test.labels[chosen].tolist()], np.int64)
        sets = [name for name, is_chosen in zip(test.sets, chosen, strict=True) if is_chosen]
        lines = measure(
            rows_of(rows, indexes, head),
            head,
            {name: values[chosen] for name, values in features.items()},
            {name: values[chosen] for name, values in mirrored.items()},
            labels,
            sets,
        )
        passed &= _print_task(task, lines)
        outcome[task.name] = {line.name: _as_json(line) for line in lines}
    progress("from_prompts", time.perf_counter() - started_s)
    print(json.dumps(outcome))
    return int(not passed)


def _print_task(task: Task, lines: list[Line]) -> bool:
    """Print a table; return whether the recipe reaches the target and is better than CLIP by the paired interval."""
    whole = lines[1]
    assert whole.against_zero_shot is not None
    passed = whole.accuracy.value >= task.target and whole.against_zero_shot.difference.low > 0
    verdict = "ok" if passed else "MISSED"
    print(f"\n{'/'.join(task.class_names)}: {whole.accuracy.n} pictures, target {task.target:.2f}: {verdict}")
    print(f"{'':36}top-1  95 % interval   minus zero-shot, paired")
    for line in lines:
        interval = f"{line.accuracy.value:.3f}  {line.accuracy.low:.3f} ... {line.accuracy.high:.3f}"
        against = line.against_zero_shot
        gain = against.difference if against else None
        difference = f"{gain.value:+.3f}  {gain.low:+.3f} ... {gain.high:+.3f}" if gain else ""
        print(f"{line.name:36}{interval}   {difference}")
        if line.by_set:
            print("    by set: " + ", ".join(f"{name} {value:.2f}" for name, value in line.by_set.items()))
    return passed


def _as_json(line: Line) -> dict[str, object]:
    found: dict[str, object] = {"accuracy": asdict(line.accuracy)}
    if line.against_zero_shot:
        found["against_zero_shot"] = asdict(line.against_zero_shot.difference)
    return found | ({"by_set": line.by_set} if line.by_set else {})


if __name__ == "__main__":
    sys.exit(main())
