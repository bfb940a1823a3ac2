"""Forwards compiled by torch, for the native size of a model.

Compiling another size would block the device for a minute, so other sizes run uncompiled. Imports no model. The loader
thread makes the first call, which compiles; afterwards the device thread alone calls.
"""

import logging
from typing import Protocol

import torch

from app.engine.kernels.cuda import Forward

logger = logging.getLogger(__name__)


class Compiler(Protocol):
    """Turns a forward into a faster one with the same results up to rounding."""

    def __call__(self, forward: Forward) -> Forward:
        """Return a forward that compiles at its first call."""


def compile_forward(forward: Forward) -> Forward:
    """Compile with `torch.compile`."""
    compiled: Forward = torch.compile(forward)
    return compiled


class CompiledForward:
    """A forward that is compiled for one size and any number of rows.

    Where compiling fails, the forward runs uncompiled.
    """

    def __init__(self, forward: Forward, compiler: Compiler, side: int) -> None:
        """Compile nothing yet.

        Args:
            forward: Takes samples (R, C, h, w) first; its other inputs begin with R too.
            compiler: `compile_forward`, or a fake of it in tests.
            side: Height and width of the samples for which it is compiled.
        """
        self._forward = forward
        self._compiled: Forward | None = compiler(forward)
        self._size = (side, side)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Run the forward.

        Raises:
            torch.OutOfMemoryError: The forward does not fit into memory.
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
            logger.warning("The model cannot be compiled on this device; it runs uncompiled.", exc_info=True)
            self._compiled = None
            return self._forward(*inputs)
