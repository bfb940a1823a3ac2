"""Optimized layers for a CPU that several models share, and the comparison that each replacement has to pass.

The layers of diffusers, transformers and torchvision support training, every architecture and every device; these do
the same arithmetic in fewer passes. Imports no model. The loader thread calls `replace_if_equivalent`; the layers run
on the device thread.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

logger = logging.getLogger(__name__)

# Largest difference between a layer and its replacement, in units of the dtype's epsilon: another order of summation
# changes results by this much.
_MAX_EPS = 32


class CpuConv2d(nn.Module):
    """A convolution with weights in oneDNN's memory order; in float32 its bytes are those of `nn.Conv2d`.

    Source:
        torch's inductor for a frozen convolution on the CPU (`torch/_inductor/fx_passes/mkldnn_fusion.py`).
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool = False) -> None:
        """Copy the weights of `conv` in oneDNN's order; `relu`: whether negative results become 0.

        For 1x1 kernels that order depends on the number of pixels: such weights are fast in their original order, and
        up to nine times slower in the order of another number.
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
    """A linear layer that calls oneDNN directly in bfloat16: torch first copies the bias into the output."""

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
    """A 1x1 convolution as one matrix product; oneDNN would prepare each call of the convolution again."""

    def __init__(self, conv: nn.Conv2d) -> None:
        """Share the weights of `conv`, which must have stride 1, one group and no padding."""
        super().__init__()
        if conv.kernel_size != (1, 1) or conv.stride != (1, 1) or conv.padding != (0, 0) or conv.groups != 1:
            raise TypeError("The layer is not a 1x1 convolution.")
        self.linear = CpuLinear(conv.weight.flatten(1), conv.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply it. **Shapes**: (R, C, h, w) to (R, D, h, w), in channels_last like `inputs`."""
        rows, channels, height, width = inputs.shape
        outputs: torch.Tensor = self.linear(inputs.permute(0, 2, 3, 1).reshape(-1, channels))
        return outputs.view(rows, height, width, -1).permute(0, 3, 1, 2)


def replace_if_equivalent(
    make: Callable[[Any], nn.Module],
    layer: nn.Module,
    draw: Callable[[Any], Sequence[torch.Tensor | None]],
    **options: object,
) -> nn.Module | None:
    """Build the replacement of a layer; None where its results differ from the original's, or it cannot be built.

    Args:
        make: Builds the replacement from the original.
        layer: The original, on the CPU and in eval mode.
        draw: Draws the inputs with which both are called.
        **options: Keyword arguments with which both are called.
    """
    try:
        inputs = draw(layer)
        expected = _first(layer(*inputs, **options))
        replacement = make(layer).eval()
        difference = (_first(replacement(*inputs, **options)) - expected).abs().max()
    except (AssertionError, AttributeError, TypeError, RuntimeError):
        logger.debug("A %s cannot be optimized.", type(layer).__name__, exc_info=True)
        return None
    tolerance = _MAX_EPS * torch.finfo(expected.dtype).eps * expected.abs().max()
    return replacement if difference <= tolerance else None


def _first(outputs: Any) -> torch.Tensor:
    """Return the first of several results."""
    tensor: torch.Tensor = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
    return tensor
