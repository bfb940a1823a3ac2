"""The working folder of a build: seeds, checkpoints that survive an interruption, and the log.

Imports no models.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

TRAIN_SEED = 1
HELD_OUT_SEED = 2
TORCH_SEED = 1


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load(path: Path) -> dict[str, Any] | None:
    """The checkpoint at `path`, or None when there is none."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def log(workdir: Path, stage: str, **values: object) -> None:
    """Print a line of progress and append it to the build's log."""
    entry = {"time": time.strftime("%H:%M:%S", time.gmtime()), "stage": stage, **values}
    line = json.dumps(entry)
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    with (workdir / "log.jsonl").open("a") as file:
        file.write(line + "\n")
