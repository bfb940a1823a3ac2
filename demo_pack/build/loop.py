"""The training loop of all stages: counted steps, averaged weights, checkpoints, one log.

Every step seeds its random generators with its own number, so a run that was interrupted and continued ends with the
weights of an uninterrupted one. Imports no drawings; the loss comes from the stage.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim import AdamW

from demo_pack.build.muon import Muon
from demo_pack.build.workdir import TORCH_SEED, load, log, save

CHECKPOINT_EVERY = 100


# The first and last layers and the embeddings do not map between hidden features: AdamW suits them better.
OUTER = ("embedding", "conv_in", "conv_out", "quant_conv", "reading")
OUTERMOST = ("conv1", "fc")  # of torchvision's ResNet; its blocks have a conv1 too


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a stage: Muon on the hidden matrices, AdamW on the rest.

    The learning rates warm up, stay constant, and fall linearly over the last half.

    Attributes:
        steps: Optimizer steps of the whole stage.
        learning_rate: Highest learning rate of AdamW.
        hidden_learning_rate: Highest learning rate of Muon.
        weight_decay: Of both optimizers.
        ema_decay: Of the exponential moving average of the weights, 0 to 1; the pack contains the average.
    """

    steps: int
    learning_rate: float
    hidden_learning_rate: float = 0.02
    weight_decay: float = 0.01
    ema_decay: float = 0.998

    def limited(self, steps: int | None) -> Recipe:
        """The recipe with another number of steps, where one is given."""
        return self if steps is None else replace(self, steps=steps)

    def optimizers(self, model: nn.Module) -> list[torch.optim.Optimizer]:
        """Muon and AdamW, each with its share of the parameters; one of them alone where the other has none."""
        hidden = [value for name, value in model.named_parameters() if is_hidden(name, value)]
        outer = [value for name, value in model.named_parameters() if not is_hidden(name, value)]
        optimizers: list[torch.optim.Optimizer] = []
        if hidden:
            optimizers.append(Muon(hidden, self.hidden_learning_rate, self.weight_decay))
        if outer:
            optimizers.append(AdamW(outer, self.learning_rate, weight_decay=self.weight_decay, fused=True))
        return optimizers


def is_hidden(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix (or convolution) between hidden features."""
    is_outer = name.split(".")[0] in OUTERMOST or any(part in name for part in OUTER)
    return parameter.ndim >= 2 and not is_outer


@dataclass(frozen=True)
class Moment:
    """One step: its number from 0, its share of the stage (0 to 1) and its own random generator."""

    step: int
    share: float
    rng: np.random.Generator


Loss = Callable[[Moment], torch.Tensor]


def pace(share: float, warm: float = 0.01, floor: float = 0.02) -> float:
    """Learning-rate factor at `share` (0 to 1) of a stage: a short warm-up, a plateau, a straight line to `floor`."""
    return min(share / warm, 1.0, floor + (1 - floor) * 2 * (1 - share))


def train(workdir: Path, name: str, model: nn.Module, loss: Loss, recipe: Recipe) -> bool:
    """Train `model` in place to the recipe's last step, from the checkpoint `{name}.pt` where it exists.

    Returns:
        Whether any step was left to train.
    """
    optimizers = recipe.optimizers(model)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    average = {key: value.detach().clone() for key, value in model.state_dict().items()}
    step, spent = 0, 0.0
    if state := load(workdir / f"{name}.pt"):
        model.load_state_dict(state["model"])
        for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        step, spent, average = state["step"], state["spent"], state["ema"]
    started, recent, is_unfinished = time.monotonic() - spent, [], step < recipe.steps
    while step < recipe.steps:
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * pace((step + 1) / recipe.steps)
        recent.append(_descend(model, optimizers, loss(moment(name, step, recipe.steps))))
        step += 1
        _average(average, model, min(recipe.ema_decay, (1 + step) / (10 + step)))
        if step % CHECKPOINT_EVERY == 0 or step == recipe.steps:
            spent = time.monotonic() - started
            log(workdir, name, step=step, loss=round(sum(recent) / len(recent), 4), minutes=round(spent / 60, 1))
            kept = [optimizer.state_dict() for optimizer in optimizers]
            parts = {"model": model.state_dict(), "optimizers": kept, "ema": average}
            save(workdir / f"{name}.pt", {**parts, "step": step, "spent": spent})
            recent = []
    return is_unfinished


def moment(name: str, step: int, steps: int) -> Moment:
    """The step `step` of the stage `name`, with torch's own generator seeded for it."""
    seed = [TORCH_SEED, zlib.crc32(name.encode()), step]
    rng = np.random.default_rng(seed)
    torch.manual_seed(int(rng.integers(2**31)))
    return Moment(step, step / steps, rng)


def _descend(model: nn.Module, optimizers: list[torch.optim.Optimizer], loss: torch.Tensor) -> float:
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return float(loss.detach())


def _average(average: dict[str, torch.Tensor], model: nn.Module, decay: float) -> None:
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            average[key].lerp_(value, 1 - decay)
        else:
            average[key].copy_(value)


def load_average(workdir: Path, name: str, model: nn.Module) -> None:
    """Load the averaged weights of the stage `name` into `model`; without a checkpoint the model stays untrained."""
    if state := load(workdir / f"{name}.pt"):
        model.load_state_dict(state["ema"])
