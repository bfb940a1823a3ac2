"""Where a build keeps what it made so far: seeds, time budgets and checkpoints that survive a cut."""

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


class Budget:
    """Counts down the minutes of a stage, over all its runs: `spent` seconds were used before this one."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self._started = time.monotonic() - spent
        self._seconds = minutes * 60

    @property
    def used(self) -> float:
        """Seconds used so far, earlier runs counted in."""
        return time.monotonic() - self._started

    @property
    def share(self) -> float:
        """Used share of the budget, 0 to 1."""
        return min(1.0, self.used / self._seconds)


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


def cosine(share: float, warm: float = 0.03, floor: float = 0.03) -> float:
    """Learning-rate factor at `share` (0 to 1) of the budget: a short warm-up, then a cosine to `floor`."""
    if share < warm:
        return share / warm
    angle = torch.pi * (share - warm) / (1 - warm)
    return float(floor + (1 - floor) * 0.5 * (1 + torch.cos(torch.tensor(angle))))
