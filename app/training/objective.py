"""The loss of a head: cross-entropy with hard, smoothed or soft labels, and weighted rows.

Works on tensors. Runs in the worker, on the thread of its caller.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from app.training.probe import Probabilities
from app.training.rows import Rows
from app.training.settings import HeadSettings


def class_weights(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the balanced weight of each class: N / (K n_k), the mean over the rows is 1.

    Source:
        scikit-learn's `class_weight="balanced"` (King and Zeng 2001).
    """
    weights: npt.NDArray[np.float64] = sizes.sum() / (len(sizes) * sizes)
    return weights


class Objective:
    """The targets and weights of the training rows.

    A row's target is (1 - share) x its smoothed label + share x its soft label. The loss of a batch is the mean of its
    rows' cross-entropies, weighted by their classes, as in `torch.nn.CrossEntropyLoss(weight=...)` with hard labels.
    """

    def __init__(self, rows: Rows, settings: HeadSettings, *, num_classes: int, soft_labels: Probabilities | None):
        """Prepare the targets of these rows.

        Raises:
            ValueError: The soft labels have another shape than (N, K), or are no probabilities.
        """
        self.num_classes = num_classes
        self._labels = torch.from_numpy(np.array(rows.labels, np.int64))
        self._smoothing = settings.label_smoothing
        self._share = settings.soft_share
        self._soft = _checked(soft_labels, (len(rows), num_classes)) if soft_labels is not None else None
        self._weights = None
        if settings.class_weights == "balanced":
            weights = class_weights(rows.class_sizes(num_classes)).astype(np.float32)
            self._weights = torch.from_numpy(weights)[self._labels]

    def loss(self, logits: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar.

        Shapes:
            logits: (B, K).
            batch: (B,), the numbers of the rows.
        """
        if self._soft is None and self._weights is None:
            return functional.cross_entropy(logits, self._labels[batch], label_smoothing=self._smoothing)
        losses = -(self.targets(batch) * logits.log_softmax(dim=1)).sum(dim=1)
        return (self.weights(batch) * losses).sum()

    def targets(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the target distributions of a batch, (B, K)."""
        hard = functional.one_hot(self._labels[batch], self.num_classes).float()
        targets = hard * (1 - self._smoothing) + self._smoothing / self.num_classes
        return targets if self._soft is None else (1 - self._share) * targets + self._share * self._soft[batch]

    def weights(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the weights of a batch's rows, (B,); their sum is 1."""
        weights = torch.ones(len(batch)) if self._weights is None else self._weights[batch]
        return weights / weights.sum()


def _checked(soft_labels: Probabilities, shape: tuple[int, int]) -> torch.Tensor:
    if soft_labels.shape != shape:
        raise ValueError("The shape of the soft labels must be (N, K).")
    if not (soft_labels >= 0).all() or not np.allclose(soft_labels.sum(axis=1), 1, atol=1e-3):
        raise ValueError("The soft labels of a row must be probabilities: not negative, with sum 1.")
    return torch.from_numpy(np.array(soft_labels, np.float32))
