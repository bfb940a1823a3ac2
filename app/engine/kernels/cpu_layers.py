"""What remaking layers for a CPU takes, whatever the model: convolutions, and the trial that each layer has to pass.

A library's layers serve training, every architecture and every device; ours do the same arithmetic in fewer passes.
Knows no model. Called by the loader thread; the layers run on the device thread.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

logger = logging.getLogger(__name__)

# How far a remade layer may be from its original: what another order of summation can make of float32.
_MOST_EPS = 32


class CpuConv2d(nn.Module):
    """A convolution whose weights lie as oneDNN wants them; in float32 it gives the very bytes of `nn.Conv2d`.

    Source:
        What torch's inductor makes of a frozen convolution on the CPU (`torch/_inductor/fx_passes/mkldnn_fusion.py`).
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        """Copy the weights of `conv` in oneDNN's order; `relu`: whether negative results become 0.

        For single pixels that order depends on the number of pixels: such weights are as fast as they come, and up to
        nine times slower in the order of another number.
        """
        super().__init__()
        self._how: tuple[Any, ...] = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self._after = "relu" if relu else "none"
        self.bias = conv.bias
        self._weight = (
            conv.weight.detach()
            if conv.kernel_size == (1, 1)
            else torch.ops.mkldnn._reorder_convolution_weight(conv.weight.detach(), *self._how)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply it. **Shapes**: (R, C, h, w) to (R, D, h', w')."""
        outputs: torch.Tensor = torch.ops.mkldnn._convolution_pointwise(
            inputs, self._weight, self.bias, *self._how, self._after, [], ""
        )
        return outputs


class CpuLinear(nn.Module):
    """A linear layer that in bfloat16 asks oneDNN at once: torch first copies the bias to where the results go."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        """Take the weights.

        Shapes:
            weight: (E, D); bias: (E,).
        """
        super().__init__()
        self.weight = nn.Parameter(weight.detach(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply it. **Shapes**: (..., D) to (..., E)."""
        if inputs.dtype != torch.bfloat16:
            return functional.linear(inputs, self.weight, self.bias)
        outputs: torch.Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
        return outputs


class CpuPixelConv2d(nn.Module):
    """A convolution of single pixels as what it is, one product of matrices; oneDNN prepares each of its calls anew."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Share the weights of `conv`, which has stride 1, one group and no padding."""
        super().__init__()
        if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.padding != (0, 0) or conv.groups != 1:
            raise TypeError("not a convolution of single pixels")
        self.linear = CpuLinear(conv.weight.flatten(1), conv.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply it. **Shapes**: (R, C, h, w) to (R, D, h, w), in channels_last as `inputs` should be."""
        rows, channels, height, width = inputs.shape
        outputs: torch.Tensor = self.linear(inputs.permute(0, 2, 3, 1).reshape(-1, channels))
        return outputs.view(rows, height, width, -1).permute(0, 3, 1, 2)


def try_remake(
    make: Callable[[Any], nn.Module],
    layer: nn.Module,
    draw: Callable[[Any], Sequence[torch.Tensor | None]],
    **options: object,
) -> nn.Module | None:
    """Remake a layer, in eval mode; None where it does not give what the original gives, or cannot be made of it.

    Args:
        make: Makes it of the original.
        layer: The original, on the CPU and in eval mode.
        draw: Draws, for the original, what both are tried with.
        **options: Keyword arguments of both.
    """
    try:
        inputs = draw(layer)
        expected = _first(layer(*inputs, **options))
        remade = make(layer).eval()
        off = (_first(remade(*inputs, **options)) - expected).abs().max()
    except (AssertionError, AttributeError, TypeError, RuntimeError):
        logger.debug("A %s cannot be remade.", type(layer).__name__, exc_info=True)
        return None
    return remade if off <= _MOST_EPS * torch.finfo(expected.dtype).eps * expected.abs().max() else None


def _first(outputs: Any) -> torch.Tensor:
    """Take the first of several results."""
    tensor: torch.Tensor = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
    return tensor
