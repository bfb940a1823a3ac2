"""The same bytes for one row, whatever shares its forward: what it takes.

On the CPU a UNet's result for a row is bitwise independent of its place and its neighbours. On their number it depends
in two ways alone: the linear layers of the timestep embedding multiply as many rows as the batch has, and BLAS rounds
differently for different numbers; and a lone row takes other kernels. Knows nothing of requests and noise schedulers.
`calibration` tests whether it holds. Runs on the device thread.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

FIXED_ROWS = 32
LEAST_ROWS = 2

# Where rows turn out to depend on their number early on, every forward has this many.
FALLBACK_ROWS = 8


class FixedRowsLinear(nn.Module):
    """A linear layer that multiplies `FIXED_ROWS` rows at a time, however many it is given."""

    def __init__(self, linear: nn.Linear) -> None:
        """Share the weights of `linear`."""
        super().__init__()
        self.linear = linear

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply the layer to zero-padded blocks of rows.

        Shapes:
            inputs: (R, D); returns: (R, E).
        """
        blocks = []
        for block in torch.split(inputs, FIXED_ROWS):
            padded = functional.pad(block, (0, 0, 0, FIXED_ROWS - block.shape[0]))
            blocks.append(self.linear(padded)[: block.shape[0]])
        return torch.cat(blocks)


def fix_timestep_rows(unet: Any) -> None:
    """Put `FixedRowsLinear` in place of every linear layer of a UNet that works on one vector a row.

    Source:
        diffusers `TimestepEmbedding` and `ResnetBlock2D.time_emb_proj`.
    """
    layers = [(unet.time_embedding, "linear_1"), (unet.time_embedding, "linear_2")]
    layers += [(module, "time_emb_proj") for module in unet.modules() if hasattr(module, "time_emb_proj")]
    for module, name in layers:
        layer = getattr(module, name)
        if isinstance(layer, nn.Linear):
            setattr(module, name, FixedRowsLinear(layer))


@dataclass(frozen=True, slots=True)
class RowPadding:
    """How the rows that are wanted are put into forwards.

    Attributes:
        most: Rows of one forward at most; more are split.
        least: Rows of one forward at least; fewer are filled up.
    """

    most: int
    least: int = LEAST_ROWS

    def blocks(self, rows: int) -> list[list[int]]:
        """Return the row indices of each forward, in order; only the last is filled up, with the first row.

        The results of all forwards, one after the other, begin with those of the rows that are wanted.
        """
        blocks = [list(range(start, min(start + self.most, rows))) for start in range(0, rows, self.most)]
        blocks[-1] += [0] * (self.least - len(blocks[-1]))
        return blocks
