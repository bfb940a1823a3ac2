"""Several settings of sgd or adamw trained in one pass: the heads are stacked along the classes of one matrix product.

Works on rows of features; imports no scikit-learn. Runs in the worker, on the CPU, on the thread of its caller; limits
torch to one thread while an epoch runs.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from app.training.gradient import Splits, first_weights
from app.training.objective import Objective
from app.training.outcome import Diverged, HeadEpoch
from app.training.probe import LinearProbe
from app.training.rows import Rows, one_torch_thread
from app.training.settings import HeadSettings

# 6 x 4 = 24 settings. The learning rates are multiples of the request's; SGD's span three decades around 0.001.
LR_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2)
C_VALUES = (0.1, 1.0, 10.0, 30.0, 100.0, 1000.0)
# Weights of the heads in one pass: 64 MB in float32, as much again for the gradient and for each moment.
MAX_STACKED_WEIGHTS = 1 << 24
MAX_LOGITS = 1 << 24
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting of a sweep, with its metrics on the validation rows; None: its training was not finite."""

    settings: HeadSettings
    validation_loss: float | None
    validation_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trial with its head, on the scaled features, and its epochs; a solver without epochs has none."""

    trial: Trial
    probe: LinearProbe
    epochs: tuple[HeadEpoch, ...] = ()


def settings_grid(settings: HeadSettings) -> list[HeadSettings]:
    """Return the settings that a sweep compares: 24 of sgd or adamw, 6 of lbfgs."""
    base = replace(settings, solver=settings.sweep_solver)
    if settings.sweep_solver == "lbfgs":
        return [replace(base, c=c) for c in C_VALUES]
    pairs = itertools.product(LR_FACTORS, WEIGHT_DECAYS)
    return [replace(base, lr=settings.lr * factor, weight_decay=decay) for factor, decay in pairs]


def best_candidate(candidates: Sequence[Candidate]) -> Candidate:
    """Return the candidate with the lowest validation loss; the first one of equals.

    The loss, not the accuracy: on some dozens of validation images many settings have equal accuracies.

    Raises:
        Diverged: No training was finite.
    """
    finite = [(one.trial.validation_loss, one) for one in candidates if one.trial.validation_loss is not None]
    if not finite:
        raise Diverged
    return min(finite, key=lambda pair: pair[0])[1]


def descend_together(
    splits: Splits,
    objective: Objective,
    grid: Sequence[HeadSettings],
    *,
    seed: int,
    initial: LinearProbe | None = None,
    between_epochs: Callable[[], None] = lambda: None,
    max_weights: int = MAX_STACKED_WEIGHTS,
) -> list[Candidate]:
    """Train one head for each setting, all on the same batches, and measure them on the validation rows.

    A head equals the one that `gradient.descend` trains with the same setting and seed, but for rounding.

    Args:
        splits: Checked rows, scaled as the solver needs them, with validation rows.
        objective: The loss of the training rows.
        grid: Settings that differ in learning rate and weight decay alone.
        seed: Determines the initial weights and the order of the rows.
        initial: The head to start from; None: torch's own initialisation.
        between_epochs: Called after each epoch; an exception from it ends the training.
        max_weights: Of the heads in one pass; more settings take further passes.

    Returns:
        The candidates, in the order of the grid.
    """
    weights_of_a_head = objective.num_classes * (splits.train.features.shape[1] + 1)
    size = max(1, max_weights // weights_of_a_head)
    candidates: list[Candidate] = []
    for start in range(0, len(grid), size):
        part = grid[start : start + size]
        with one_torch_thread():
            stack = _Stack(splits.train, objective, part, seed=seed, initial=initial)
            measured = [_Measured(rows) if rows else None for rows in (splits.validation, splits.test)]
        history = []
        for epoch in range(grid[0].epochs):
            with one_torch_thread():
                history.append(_run_epoch(stack, measured, epoch))
            between_epochs()
        candidates += [_candidate(*one) for one in zip(part, stack.heads(), zip(*history, strict=True), strict=True)]
    return candidates


def _candidate(settings: HeadSettings, head: LinearProbe, epochs: Sequence[HeadEpoch]) -> Candidate:
    last = epochs[-1]
    finite = np.isfinite(head.weight).all() and np.isfinite(head.bias).all()
    if last.validation_loss is None or not math.isfinite(last.validation_loss) or not finite:
        return Candidate(Trial(settings, None, None), head)
    return Candidate(Trial(settings, last.validation_loss, last.validation_accuracy), head, tuple(epochs))


def _run_epoch(stack: "_Stack", measured: Sequence["_Measured | None"], epoch: int) -> list[HeadEpoch]:
    """Train every head on every row once and measure the other splits; return each head's metrics."""
    started_s = time.perf_counter()
    train = stack.run_epoch(epoch)
    validation, test = (rows.measure(stack) if rows else [(None, None)] * len(stack.grid) for rows in measured)
    elapsed_ms = (time.perf_counter() - started_s) * 1000
    return [
        HeadEpoch(
            epoch=epoch + 1,
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            test_loss=test_loss,
            test_accuracy=test_accuracy,
            lr=settings.lr * settings.lr_factor(epoch),
            elapsed_ms=elapsed_ms,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
        )
        for settings, (train_loss, train_accuracy), (validation_loss, validation_accuracy), (
            test_loss,
            test_accuracy,
        ) in zip(stack.grid, train, validation, test, strict=True)
    ]


class _Measured:
    """Rows that all heads are measured on, in blocks of bounded logits."""

    def __init__(self, rows: Rows) -> None:
        self._features = _with_ones(rows)
        self._labels = torch.from_numpy(np.array(rows.labels, np.int64))

    def measure(self, stack: "_Stack") -> list[tuple[float, float]]:
        """Return the mean cross-entropy and the accuracy of every head."""
        loss, correct = torch.zeros(len(stack.grid), dtype=torch.float64), torch.zeros(len(stack.grid))
        size = max(1, MAX_LOGITS // (len(stack.grid) * stack.num_classes))
        for rows, labels in zip(torch.split(self._features, size), torch.split(self._labels, size), strict=True):
            scores = stack.logits(rows)
            chosen = labels[:, None].expand(-1, len(stack.grid))
            loss -= scores.log_softmax(dim=2).gather(2, chosen[:, :, None]).sum(dim=(0, 2)).double()
            correct += (scores.argmax(dim=2) == chosen).sum(dim=0)
        return list(zip((loss / len(self._labels)).tolist(), (correct / len(self._labels)).tolist(), strict=True))


class _Stack:
    """S heads as one matrix (S K, D + 1), whose last column is the bias, with their moments."""

    def __init__(
        self,
        train: Rows,
        objective: Objective,
        grid: Sequence[HeadSettings],
        *,
        seed: int,
        initial: LinearProbe | None,
    ) -> None:
        self.grid, self.num_classes, self._objective = grid, objective.num_classes, objective
        self._features = _with_ones(train)
        self._labels = torch.from_numpy(np.array(train.labels, np.int64))
        self._order = torch.Generator().manual_seed(seed)
        weight, bias = first_weights(train.features.shape[1], self.num_classes, seed)
        if initial is not None:
            weight, bias = torch.from_numpy(initial.weight.copy()), torch.from_numpy(initial.bias.copy())
        self._weights = torch.cat([weight, bias[:, None]], dim=1).repeat(len(grid), 1)
        self._first_moment = torch.zeros_like(self._weights)
        self._second_moment = torch.zeros_like(self._weights) if grid[0].solver == "adamw" else None
        self._lr = _column([each.lr for each in grid], self.num_classes)
        self._decay = _column([each.weight_decay for each in grid], self.num_classes)
        self._num_steps = 0

    def run_epoch(self, epoch: int) -> list[tuple[float, float]]:
        """Train every head on every row once; return loss and accuracy, averaged while the weights change."""
        lr = self._lr * self.grid[0].lr_factor(epoch)
        loss, correct = torch.zeros(len(self.grid)), torch.zeros(len(self.grid))
        order = torch.randperm(len(self._features), generator=self._order)
        for batch in torch.split(order, self.grid[0].batch_size):
            rows, targets = self._features[batch], self._objective.targets(batch)[:, None]
            weights = self._objective.weights(batch)[:, None]
            log_p = self.logits(rows).log_softmax(dim=2)
            loss -= (targets * log_p).sum(dim=2).mul_(weights).sum(dim=0) * len(batch)
            correct += (log_p.argmax(dim=2) == self._labels[batch][:, None]).sum(dim=0)
            # The gradient of softmax cross-entropy is p - q, times the row's weight.
            errors = log_p.exp_().sub_(targets).mul_(weights[:, :, None])
            self._step(errors.flatten(1).T @ rows, lr)
        return list(zip((loss / len(order)).tolist(), (correct / len(order)).tolist(), strict=True))

    def logits(self, rows: torch.Tensor) -> torch.Tensor:
        """Return every head's scores, (B, S, K), of rows (B, D + 1)."""
        return (rows @ self._weights.T).reshape(len(rows), len(self.grid), self.num_classes)

    def heads(self) -> list[LinearProbe]:
        """Return the heads, in the order of the grid."""
        stacked = self._weights.reshape(len(self.grid), self.num_classes, -1).numpy()
        return [LinearProbe(head[:, :-1].copy(), head[:, -1].copy()) for head in stacked]

    def _step(self, gradient: torch.Tensor, lr: torch.Tensor) -> None:
        """Change the weights as `torch.optim.SGD` or `torch.optim.AdamW` does, each head at its own rate."""
        self._num_steps += 1
        if self._second_moment is None:
            gradient.addcmul_(self._weights, self._decay)
            self._first_moment.mul_(self.grid[0].momentum).add_(gradient)
            self._weights.addcmul_(self._first_moment, lr, value=-1)
            return
        self._weights.mul_(1 - lr * self._decay)
        self._first_moment.lerp_(gradient, 1 - BETA1)
        self._second_moment.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        root = self._second_moment.sqrt().div_(math.sqrt(1 - BETA2**self._num_steps)).add_(EPSILON)
        rate = lr / (1 - BETA1**self._num_steps)
        self._weights.addcmul_(self._first_moment.div(root), rate, value=-1)


def _with_ones(rows: Rows) -> torch.Tensor:
    features = torch.from_numpy(np.array(rows.features, np.float32))
    return torch.cat([features, torch.ones(len(features), 1)], dim=1)


def _column(values: Sequence[float], num_classes: int) -> torch.Tensor:
    """Return each head's value for each of its rows, (S K, 1)."""
    return torch.tensor(values, dtype=torch.float32).repeat_interleave(num_classes)[:, None]
