"""The same bytes for one row, whatever shares its forward: what it takes.

On the CPU a UNet's result for a row is bitwise independent of its place and its neighbours. On their number it depends
in two ways alone: the linear layers of the timestep embedding multiply as many rows as the batch has, and BLAS rounds
differently for different numbers; and a lone row takes other kernels. Knows nothing of requests and noise schedulers.
`calibration` tests whether it holds. Runs on the device thread.
"""

from bisect import bisect_left
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
        if len(inputs) > FIXED_ROWS:
            return torch.cat([self(block) for block in torch.split(inputs, FIXED_ROWS)])
        outputs: torch.Tensor = self.linear(functional.pad(inputs, (0, 0, 0, FIXED_ROWS - len(inputs))))
        return outputs[: len(inputs)]


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
        sizes: The numbers of rows that a forward may have, >= 1, ascending. More rows than the last are split, a
            number in between is filled up to the next.
    """

    sizes: tuple[int, ...]

    @property
    def most(self) -> int:
        """The rows of one forward at most."""
        return self.sizes[-1]

    def size(self, rows: int) -> int:
        """Return how many rows a forward has that 1 ... `most` rows are wanted of."""
        return self.sizes[bisect_left(self.sizes, rows)]

    def blocks(self, rows: int) -> list[list[int]]:
        """Return the row indices of each forward, in order; only the last is filled up, with the first row.

        The results of all forwards, one after the other, begin with those of the rows that are wanted.
        """
        blocks = [list(range(start, min(start + self.most, rows))) for start in range(0, rows, self.most)]
        blocks[-1] += [0] * (self.size(len(blocks[-1])) - len(blocks[-1]))
        return blocks
