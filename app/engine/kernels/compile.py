"""Forwards that a compiler has fused, for the size that a model was made for.

Another size would be compiled anew, a minute in which nobody is served, so it runs as it is. Knows nothing of what the
model is. The loader thread makes the first call, which compiles; from then on it is the device thread's.
"""

import logging
from typing import Protocol

import torch

from app.engine.kernels.cuda import Forward

logger = logging.getLogger(__name__)


class Compiler(Protocol):
    """Makes a forward that gives the same up to rounding, faster."""

    def __call__(self, forward: Forward) -> Forward:
        """Compile it, at its first call."""


def compile_forward(forward: Forward) -> Forward:
    """Compile with what comes with torch."""
    compiled: Forward = torch.compile(forward)
    return compiled


class CompiledForward:
    """A forward that is compiled for one size, whatever the number of rows.

    Where compiling fails, the forward runs as it is.
    """

    def __init__(self, forward: Forward, compiler: Compiler, side: int) -> None:
        """Compile nothing yet.

        Args:
            forward: Takes samples (R, C, h, w) first; its other inputs begin with R too.
            compiler: `compile_forward`, or what a test takes for it.
            side: Height and width of the samples that it is compiled for.
        """
        self._forward = forward
        self._compiled: Forward | None = compiler(forward)
        self._size = (side, side)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the forward.

        Raises:
            torch.OutOfMemoryError: It does not fit.
        """
        if self._compiled is None or inputs[0].shape[2:] != self._size:
            return self._forward(*inputs)
        for tensor in inputs:
            if tensor.shape[0] > 1:
                torch._dynamo.maybe_mark_dynamic(tensor, 0)  # one compilation for every number of rows
        try:
            return self._compiled(*inputs)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            logger.warning("The model cannot be compiled on this device; it runs as it is.", exc_info=True)
            self._compiled = None
            return self._forward(*inputs)
