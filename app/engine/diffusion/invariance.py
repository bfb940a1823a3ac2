"""Layers that make a UNet batch-invariant on the CPU: a row's bytes do not depend on the rows that share its forward.

On the CPU a UNet's result for a row is bitwise independent of its position and of the other rows. It depends on their
number in two ways only: the linear layers of the timestep embedding multiply as many rows as the batch has, and BLAS
rounds differently for different numbers; and a single row uses other kernels. `calibration` tests whether this holds.
Imports nothing of the application. The layers run on the device thread.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

FIXED_ROWS = 32


class FixedRowsLinear(nn.Module):
    """A linear layer that multiplies `FIXED_ROWS` rows at a time, for any number of input rows."""

    def __init__(self, linear: nn.Linear) -> None:
        """Share the weights of `linear`."""
        super().__init__()
        self.linear = linear

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply the layer to zero-padded blocks of rows.

        Shapes:
            inputs: (R, D); returns: (R, E).
        """
        if len(inputs) > FIXED_ROWS:
            return torch.cat([self(block) for block in torch.split(inputs, FIXED_ROWS)])
        outputs: torch.Tensor = self.linear(functional.pad(inputs, (0, 0, 0, FIXED_ROWS - len(inputs))))
        return outputs[: len(inputs)]


def fix_timestep_rows(unet: Any) -> None:
    """Replace every linear layer of a UNet that works on one vector per row by a `FixedRowsLinear`.

    Source:
        diffusers `TimestepEmbedding` and `ResnetBlock2D.time_emb_proj`.
    """
    layers = [(unet.time_embedding, "linear_1"), (unet.time_embedding, "linear_2")]
    layers += [(module, "time_emb_proj") for module in unet.modules() if hasattr(module, "time_emb_proj")]
    for module, name in layers:
        layer = getattr(module, name)
        if isinstance(layer, nn.Linear):
            setattr(module, name, FixedRowsLinear(layer))
