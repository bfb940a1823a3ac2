"""Fine-tunes EfficientNet-Lite0 on the ants and bees, beside linear probes on its features: accuracy and seconds.

    python -m bench.finetune [--modes last_block all] [--epochs 4] [--seeds 1] [--images 244] [--threads 2]

The 153 pictures of `val` are the test; nothing is chosen on them. The probe's 244 feature rows are computed once; its
seconds include that. CPU seconds are those of all threads: on a busy machine they alone compare. Every fine-tuning
starts from the SGD probe's head, unless `--new-head`.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from bench.finetune.material import DATA, Photographs, photographs, prepare_weights
from bench.finetune.measure import Row, fine_tuned, probes

HEADINGS = (
    "what",
    "seed",
    "right",
    "accuracy",
    "95 % interval (Wilson)",
    "train loss",
    "seconds",
    "CPU seconds",
    "ms a step",
)


def main() -> None:
    """Measure and print a table in Markdown."""
    arguments = _arguments()
    if not DATA.is_dir():
        sys.exit(f"The photographs are not there: {DATA}")
    torch.set_num_threads(arguments.threads)
    train, test = photographs("train", arguments.images), photographs("val")
    print(f"{len(train)} training and {len(test)} test photographs, {arguments.threads} threads, "
          f"torch {torch.__version__}, {arguments.epochs} epochs, batch {arguments.batch_size}\n")  # fmt: skip
    print(f"| {' | '.join(HEADINGS)} |\n|{' --- |' * len(HEADINGS)}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        _measure(Path(name), arguments, train, test)


def _measure(folder: Path, arguments: argparse.Namespace, train: Photographs, test: Photographs) -> None:
    weights = prepare_weights(folder)
    for seed in range(arguments.seeds):
        for row in probes(weights, train, test, seed=seed, head=folder / f"head-{seed}.safetensors"):
            _print(row)
        head = None if arguments.new_head else folder / f"head-{seed}.safetensors"
        for mode in arguments.modes:
            settings = {
                "mode": mode,
                "epochs": arguments.epochs,
                "batch_size": arguments.batch_size,
                "lr": arguments.lr,
                "backbone_lr_factor": arguments.factor,
                "optimizer": arguments.optimizer,
                "mixed_precision": arguments.precision,
                "ema_decay": arguments.ema,
                "seed": seed,
            }
            if arguments.plain:
                settings["augment"] = None
            _print(fine_tuned(folder / f"{mode}-{seed}", weights, train, test, settings, head))


def _print(row: Row) -> None:
    print(row.to_markdown(), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.finetune", description=__doc__)
    parser.add_argument("--modes", nargs="*", default=["last_block", "all"], choices=["head", "last_block", "all"])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--images", type=int, default=None, help="training photographs of each class; default: all")
    parser.add_argument("--threads", type=int, default=2, help="torch's threads")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--factor", type=float, default=0.1, help="the backbone's learning rate, in parts of --lr")
    parser.add_argument("--optimizer", choices=["sgd", "adamw"], default="sgd")
    parser.add_argument("--precision", choices=["no", "bf16", "auto"], default="auto")
    parser.add_argument("--ema", type=float, default=None)
    parser.add_argument("--plain", action="store_true", help="no augmentation")
    parser.add_argument("--new-head", action="store_true", help="start from a random head")
    return parser.parse_args()


if __name__ == "__main__":
    main()
