"""One head by mini-batches on cross-entropy: the practical's loop with SGD, or AdamW, schedules and early stopping.

Works on rows of features; imports no scikit-learn. Runs in the worker, on the CPU, on the thread of its caller; uses no
global random state, and limits torch to one thread while an epoch runs.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from app.training.objective import Objective
from app.training.outcome import Diverged, HeadEpoch, HeadWarning, refuse_diverged, training_warnings
from app.training.probe import LinearProbe
from app.training.rows import Rows, one_torch_thread
from app.training.settings import HeadSettings

OnEpoch = Callable[[HeadEpoch], None]
_Tensors = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Splits:
    """The rows of a training; those of validation and test are measured, and validation may choose the epoch."""

    train: Rows
    validation: Rows | None = None
    test: Rows | None = None


@dataclass(frozen=True, slots=True)
class GradientFit:
    """A trained head; `best_epoch` counts from 1 and is None where the last one was kept without a choice."""

    probe: LinearProbe
    epochs: tuple[HeadEpoch, ...]
    best_epoch: int | None
    warnings: tuple[HeadWarning, ...]


def descend(
    splits: Splits,
    objective: Objective,
    settings: HeadSettings,
    *,
    seed: int,
    initial: LinearProbe | None = None,
    on_epoch: OnEpoch = lambda _: None,
) -> GradientFit:
    """Train one head; equal arguments give equal bytes, for any number of torch's threads.

    Args:
        splits: Checked rows, scaled as the solver needs them; with `patience` there are validation rows.
        objective: The loss of the training rows.
        settings: Of `sgd` or `adamw`.
        seed: Determines the initial weights and the order of the rows, 0 ... 2^63 - 1.
        initial: The head to start from, on the same scaling; None: torch's own initialisation under the seed.
        on_epoch: Called after each epoch; an exception from it ends the training.

    Raises:
        Diverged: The loss or the weights are no longer finite, or the last head is worse than one that knows nothing.

    Source:
        PyTorch's transfer learning tutorial, `train_model` with a fixed extractor, except for the backbone's mode.
    """
    tensors = (_tensors(splits.train), _tensors(splits.validation), _tensors(splits.test))
    train = tensors[0]
    assert train is not None  # noqa: S101 - tells mypy that a training has rows
    fc = _first_layer(train[0].shape[1], objective.num_classes, seed, initial)
    optimizer = _optimizer(fc, settings)
    order = torch.Generator().manual_seed(seed)
    before = _loss(fc, train)
    history: list[HeadEpoch] = []
    best = _Best(settings.patience)
    for epoch in range(settings.epochs):
        history.append(_run_epoch(fc, optimizer, (train, *tensors[1:]), objective, settings, order, epoch))
        on_epoch(history[-1])
        if best.stops(history[-1], fc):
            break
    best.restore(fc)
    after = _loss(fc, train)
    refuse_diverged(before=before, after=after, num_classes=objective.num_classes)
    warnings = training_warnings(before=before, after=after, num_classes=objective.num_classes)
    probe = LinearProbe(fc.weight.detach().numpy().copy(), fc.bias.detach().numpy().copy())
    return GradientFit(probe, tuple(history), best.epoch, tuple(warnings))


def first_weights(num_features: int, num_classes: int, seed: int) -> _Tensors:
    """Return weight (K, D) and bias (K,) of `torch.manual_seed(seed); nn.Linear(D, K)`, without the global state."""
    generator = torch.Generator().manual_seed(seed)
    fc = nn.Linear(num_features, num_classes, device="meta").to_empty(device="cpu")
    nn.init.kaiming_uniform_(fc.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(num_features)
    nn.init.uniform_(fc.bias, -bound, bound, generator=generator)
    return fc.weight.detach(), fc.bias.detach()


class _Best:
    """The epoch with the lowest validation loss; the earlier one of equals."""

    def __init__(self, patience: int | None):
        self._patience = patience
        self._loss = math.inf
        self._state: dict[str, torch.Tensor] = {}
        self.epoch: int | None = None

    def stops(self, metrics: HeadEpoch, fc: nn.Linear) -> bool:
        """Take an epoch into account; return whether training stops after it."""
        if self._patience is None or metrics.validation_loss is None:
            return False
        if metrics.validation_loss < self._loss:
            self._loss, self.epoch = metrics.validation_loss, metrics.epoch
            self._state = {name: value.clone() for name, value in fc.state_dict().items()}
        return self.epoch is not None and metrics.epoch - self.epoch >= self._patience

    def restore(self, fc: nn.Linear) -> None:
        """Put the weights of the best epoch back."""
        if self._state:
            fc.load_state_dict(self._state)


def _tensors(rows: Rows | None) -> _Tensors | None:
    """Return copies, because a caller's arrays may be read-only; None without rows."""
    if rows is None or len(rows) == 0:
        return None
    return torch.from_numpy(np.array(rows.features, np.float32)), torch.from_numpy(np.array(rows.labels, np.int64))


def _first_layer(num_features: int, num_classes: int, seed: int, initial: LinearProbe | None) -> nn.Linear:
    weight, bias = first_weights(num_features, num_classes, seed)
    if initial is not None:
        weight, bias = torch.from_numpy(initial.weight.copy()), torch.from_numpy(initial.bias.copy())
    fc = nn.Linear(num_features, num_classes, device="meta").to_empty(device="cpu")
    fc.load_state_dict({"weight": weight, "bias": bias})
    return fc


def _optimizer(fc: nn.Linear, settings: HeadSettings) -> torch.optim.Optimizer:
    if settings.solver == "adamw":
        return torch.optim.AdamW(fc.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        fc.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def _run_epoch(
    fc: nn.Linear,
    optimizer: torch.optim.Optimizer,
    splits: tuple[_Tensors, _Tensors | None, _Tensors | None],
    objective: Objective,
    settings: HeadSettings,
    order: torch.Generator,
    epoch: int,
) -> HeadEpoch:
    """Train on every row once, in a new order, and measure the other splits; `epoch` counts from 0."""
    started_s = time.perf_counter()
    lr = settings.lr * settings.lr_factor(epoch)
    for group in optimizer.param_groups:
        group["lr"] = lr
    train, validation, test = splits
    with one_torch_thread():
        train_loss, train_accuracy = _train_epoch(fc, optimizer, train, objective, settings.batch_size, order)
        validation_loss, validation_accuracy = _measure(fc, validation) if validation else (None, None)
        test_loss, test_accuracy = _measure(fc, test) if test else (None, None)
    return HeadEpoch(
        epoch=epoch + 1,
        train_loss=train_loss,
        train_accuracy=train_accuracy,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        lr=lr,
        elapsed_ms=(time.perf_counter() - started_s) * 1000,
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy,
    )


def _train_epoch(
    fc: nn.Linear,
    optimizer: torch.optim.Optimizer,
    rows: _Tensors,
    objective: Objective,
    batch_size: int,
    order: torch.Generator,
) -> tuple[float, float]:
    features, labels = rows
    loss_sum, num_correct = 0.0, 0
    for batch in torch.split(torch.randperm(len(labels), generator=order), batch_size):
        logits = fc(features[batch])
        loss = objective.loss(logits, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.item() * len(batch)
        num_correct += int((logits.argmax(dim=1) == labels[batch]).sum())
    if not math.isfinite(loss_sum) or not all(bool(weights.isfinite().all()) for weights in fc.parameters()):
        raise Diverged
    return loss_sum / len(labels), num_correct / len(labels)


def _loss(fc: nn.Linear, rows: _Tensors) -> float:
    with one_torch_thread():
        return _measure(fc, rows)[0]


@torch.inference_mode()
def _measure(fc: nn.Linear, rows: _Tensors) -> tuple[float, float]:
    features, labels = rows
    logits = fc(features)
    loss = float(functional.cross_entropy(logits, labels))
    if not math.isfinite(loss):
        raise Diverged
    return loss, int((logits.argmax(dim=1) == labels).sum()) / len(labels)
