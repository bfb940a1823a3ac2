"""A linear probe: one linear layer on the features of a frozen backbone, trained as in the practical.

Works on arrays: the backbone ran before, once, in `eval()`, so that every epoch uses the same features. Runs in the
worker, on the CPU, on the thread of its caller; uses no global random state, and limits torch to one thread while an
epoch runs.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import torch
from torch import nn
from torch.nn import functional

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


class Diverged(Exception):
    """The loss or the weights are no longer finite; a smaller learning rate may help."""


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """A trained classifier head.

    Attributes:
        weight: (K, D), float32.
        bias: (K,), float32.
    """

    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """Stochastic gradient descent; the defaults are those of the practical.

    Attributes:
        name: `sgd`, the only optimizer.
        lr: Learning rate, > 0.
        momentum: In [0, 1).
    """

    name: Literal["sgd"] = "sgd"
    lr: float = 0.001
    momentum: float = 0.9


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """The metrics of one epoch; those of training are averaged while the weights change, as in the practical.

    Attributes:
        epoch: Counted from 1.
        elapsed_ms: Milliseconds of wall time of the epoch, its test included.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    lr: float
    elapsed_ms: float


@dataclass(frozen=True, slots=True)
class FitResult:
    """A trained probe and the metrics of its epochs, in order."""

    probe: LinearProbe
    epochs: tuple[EpochMetrics, ...]


def fit(
    train_features: Features,
    train_labels: Labels,
    test_features: Features | None,
    test_labels: Labels | None,
    *,
    num_classes: int,
    epochs: int = 10,
    batch_size: int = 16,
    optimizer: OptimizerSettings = OptimizerSettings(),
    seed: int = 0,
    on_epoch: Callable[[EpochMetrics], None] = lambda _: None,
) -> FitResult:
    """Train a linear probe by mini-batches on cross-entropy.

    Equal arguments give equal bytes, for any number of torch's threads.

    Args:
        train_features: The backbone's outputs for the training images.
        train_labels: Their classes; each class occurs.
        test_features: The backbone's outputs for the test images; None or empty: no test metrics.
        test_labels: Their classes.
        num_classes: K, >= 2.
        epochs: Passes over the training rows, >= 1.
        batch_size: Rows of a gradient step, >= 1; the last batch may be smaller.
        optimizer: Learning rate and momentum.
        seed: Determines the initial weights and the order of the rows, 0 ... 2^63 - 1.
        on_epoch: Called after each epoch; an exception from it ends the training.

    Shapes:
        train_features, test_features: (N, D), float32.
        train_labels, test_labels: (N,), int64, in 0 .. K - 1.

    Raises:
        ValueError: The arrays have wrong shapes or values, a count is too small, or a class has no training row.
        Diverged: The loss or the weights are no longer finite.

    Source:
        PyTorch's transfer learning tutorial, `train_model` with a fixed extractor, except for the backbone's mode.
    """
    if num_classes < 2 or epochs < 1 or batch_size < 1:
        raise ValueError("Training needs at least two classes, one epoch and one row per batch.")
    train = _to_tensors(train_features, train_labels, num_classes)
    if train[1].bincount(minlength=num_classes).min() == 0:
        raise ValueError("A class has no training row.")
    test = None
    if test_features is not None and test_labels is not None and len(test_features) > 0:
        test = _to_tensors(test_features, test_labels, num_classes)

    fc = _initial_layer(train[0].shape[1], num_classes, seed)
    torch_optimizer = torch.optim.SGD(fc.parameters(), lr=optimizer.lr, momentum=optimizer.momentum)
    order = torch.Generator().manual_seed(seed)
    history: list[EpochMetrics] = []
    for epoch in range(1, epochs + 1):
        started_s = time.perf_counter()
        with _one_thread():
            train_loss, train_accuracy = _train_epoch(fc, torch_optimizer, train, batch_size, order)
            test_loss, test_accuracy = _measure(fc, test) if test else (None, None)
        elapsed_ms = (time.perf_counter() - started_s) * 1000
        metrics = (train_loss, train_accuracy, test_loss, test_accuracy)
        history.append(EpochMetrics(epoch, *metrics, lr=optimizer.lr, elapsed_ms=elapsed_ms))
        on_epoch(history[-1])
    probe = LinearProbe(fc.weight.detach().numpy().copy(), fc.bias.detach().numpy().copy())
    return FitResult(probe, tuple(history))


def predict(probe: LinearProbe, features: Features) -> npt.NDArray[np.float32]:
    """Return each row's class probabilities.

    Shapes:
        features: (N, D), float32.
        returns: (N, K), float32; rows sum to 1.
    """
    with torch.inference_mode():
        logits = functional.linear(
            torch.from_numpy(np.array(features, np.float32)),
            torch.from_numpy(np.array(probe.weight)),
            torch.from_numpy(np.array(probe.bias)),
        )
        probabilities: npt.NDArray[np.float32] = logits.softmax(dim=1).numpy()
    return probabilities


def save_probe(probe: LinearProbe, *, classes: Sequence[str], backbone: str) -> bytes:
    """Serialize a probe as safetensors: `fc.weight` and `fc.bias`, the names in the backbone's state dict.

    The metadata is one JSON text under `foxhound`, because safetensors writes several keys in random order.
    """
    metadata = json.dumps({"backbone": backbone, "classes": list(classes)}, sort_keys=True)
    data: bytes = safetensors.numpy.save(
        {"fc.weight": np.ascontiguousarray(probe.weight), "fc.bias": np.ascontiguousarray(probe.bias)},
        metadata={"foxhound": metadata},
    )
    return data


def load_probe(data: bytes) -> LinearProbe:
    """Read the bytes that `save_probe` wrote.

    Raises:
        ValueError: The bytes are no probe: not safetensors, other names, shapes or types, or not finite.
    """
    try:
        tensors = safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise ValueError("The bytes are not a safetensors file.") from error
    if set(tensors) != {"fc.weight", "fc.bias"}:
        raise ValueError("The tensors of a probe are fc.weight and fc.bias.")
    weight, bias = tensors["fc.weight"], tensors["fc.bias"]
    if weight.ndim != 2 or bias.shape != weight.shape[:1] or {weight.dtype, bias.dtype} != {np.dtype(np.float32)}:
        raise ValueError("The shape of fc.weight must be (K, D) and that of fc.bias (K,), both float32.")
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError("A value of the probe is not finite.")
    return LinearProbe(weight, bias)


def _to_tensors(features: Features, labels: Labels, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    if features.ndim != 2 or labels.shape != features.shape[:1] or len(labels) == 0:
        raise ValueError("The shape of the features must be (N, D) and that of the labels (N,), N >= 1.")
    if not np.isfinite(features).all():
        raise ValueError("A value of the features is not finite.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError("A label is not in 0 ... K - 1.")
    return torch.from_numpy(np.array(features, np.float32)), torch.from_numpy(np.array(labels, np.int64))


def _initial_layer(num_features: int, num_classes: int, seed: int) -> nn.Linear:
    """Build the layer of `torch.manual_seed(seed); nn.Linear(...)` without the global generator."""
    generator = torch.Generator().manual_seed(seed)
    fc = nn.Linear(num_features, num_classes, device="meta").to_empty(device="cpu")
    nn.init.kaiming_uniform_(fc.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(num_features)
    nn.init.uniform_(fc.bias, -bound, bound, generator=generator)
    return fc


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: a step of the head is too small for more.

    (16, 512) x (512, 10) takes 0.4 ms on one thread and 6.7 ms on two, on two busy cores.
    """
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _train_epoch(
    fc: nn.Linear,
    optimizer: torch.optim.Optimizer,
    rows: tuple[torch.Tensor, torch.Tensor],
    batch_size: int,
    order: torch.Generator,
) -> tuple[float, float]:
    features, labels = rows
    loss_sum, num_correct = 0.0, 0
    for batch in torch.split(torch.randperm(len(labels), generator=order), batch_size):
        logits = fc(features[batch])
        loss = functional.cross_entropy(logits, labels[batch])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss_sum += loss.item() * len(batch)
        num_correct += int((logits.argmax(dim=1) == labels[batch]).sum())
    if not math.isfinite(loss_sum) or not all(bool(weights.isfinite().all()) for weights in fc.parameters()):
        raise Diverged
    return loss_sum / len(labels), num_correct / len(labels)


@torch.inference_mode()
def _measure(fc: nn.Linear, rows: tuple[torch.Tensor, torch.Tensor]) -> tuple[float, float]:
    features, labels = rows
    logits = fc(features)
    loss = float(functional.cross_entropy(logits, labels))
    if not math.isfinite(loss):
        raise Diverged
    return loss, int((logits.argmax(dim=1) == labels).sum()) / len(labels)
