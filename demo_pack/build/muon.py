"""Muon: updates every weight matrix by an orthogonal matrix close to its momentum, which trains all directions equally.

Important for a small budget: the autoencoder was as good after 400 of these steps as after 4,000 of AdamW's. Imports
no models.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

# Of the quintic iteration; they trade exactness for speed: singular values end between 0.7 and 1.2.
A, B, C = 3.4445, -4.7750, 2.0315
ITERATIONS = 5
MOMENTUM = 0.95


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """A nearly orthogonal matrix with the singular vectors of `matrix`.

    **Shapes**: (M, N) in and out.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; torch's own `Muon` is the
    same for matrices and refuses convolutions.
    """
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix).to(torch.bfloat16)
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    result: torch.Tensor = (x.T if is_tall else x).float()
    return result


class Muon(torch.optim.Optimizer):
    """The optimizer; a convolution counts as the matrix of its output channels by all the rest."""

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group["lr"], group["weight_decay"])

    def _move(self, parameter: nn.Parameter, lr: float, weight_decay: float) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        update = gradient.lerp(state["momentum"], MOMENTUM).flatten(1)
        direction = orthogonalized(update) * max(1, update.shape[0] / update.shape[1]) ** 0.5
        parameter.mul_(1 - lr * weight_decay).add_(direction.reshape(parameter.shape), alpha=-lr)
