"""torchvision's ResNets, optimized for a CPU: BatchNorm is folded into the convolutions' weights, ReLU is fused.

Handles no images or requests. The loader thread calls `optimize_resnet` once; the layers run on the device thread.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from app.engine.kernels.cpu_layers import CpuConv2d, replace_if_equivalent

# Smallest side that leaves at least one pixel for the last layers.
_TRIAL_SIDE = 64


class CpuResNet(nn.Module):
    """A `torchvision.models.ResNet` in eval mode."""

    def __init__(self, model: Any) -> None:
        """Fold the weights of `model`, which is not changed."""
        super().__init__()
        self.stem = _folded(model.conv1, model.bn1, relu=True)
        self.maxpool, self.avgpool, self.fc = model.maxpool, model.avgpool, model.fc
        stages = (model.layer1, model.layer2, model.layer3, model.layer4)
        self.blocks = nn.Sequential(*(_CpuResidualBlock(block) for stage in stages for block in stage))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Shapes:
            images: (B, 3, H, W); returns: (B, K), or (B, D) where `fc` is the identity.
        """
        hidden = self.maxpool(self.stem(images.contiguous(memory_format=torch.channels_last)))
        outputs: torch.Tensor = self.fc(self.avgpool(self.blocks(hidden)).flatten(1))
        return outputs


class _CpuResidualBlock(nn.Module):
    """A `BasicBlock` of two convolutions or a `Bottleneck` of three."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
        if hasattr(block, "conv3"):
            pairs.append((block.conv3, block.bn3))
        *inner, last = pairs
        self.inner = nn.Sequential(*(_folded(*pair, relu=True) for pair in inner))
        self.last = _folded(*last)
        self.shortcut = None if block.downsample is None else _folded(*block.downsample)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.last(self.inner(inputs))
        outputs: torch.Tensor = hidden.add_(inputs if self.shortcut is None else self.shortcut(inputs)).relu_()
        return outputs


@torch.inference_mode()
def optimize_resnet(model: nn.Module) -> nn.Module:
    """Optimize a ResNet on the CPU, in eval mode; return it unchanged where the results would differ."""
    return replace_if_equivalent(CpuResNet, model, _draw_inputs) or model


def _draw_inputs(model: nn.Module) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, _TRIAL_SIDE, _TRIAL_SIDE, generator=generator)
    return [images.to(next(model.parameters()).dtype)]


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d, *, relu: bool = False) -> CpuConv2d:
    """Fold a BatchNorm into the convolution before it.

    Source:
        torch `fuse_conv_bn_eval`.
    """
    return CpuConv2d(fuse_conv_bn_eval(conv, norm).to(memory_format=torch.channels_last), relu=relu)
