"""Low-rank changes of a network's layers while they are trained, and the file that they become.

The network itself is not changed: a forward takes its weights with the products of the factors added, so that teacher
and student are one network. Imports no drawings.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn


class Factors(nn.Module):
    """Two factors for each linear layer and convolution of a network, which start as no change.

    Source: arXiv:2106.09685; for convolutions as in LoCon, where the first factor has the kernel.
    """

    def __init__(self, network: nn.Module, rank: int) -> None:
        """Make factors of at most this rank, >= 1; torch's generator gives the first one's numbers."""
        super().__init__()
        layers = [each for each in network.named_modules() if isinstance(each[1], nn.Linear | nn.Conv2d)]
        self._weights = {
            name: layer.weight.detach() for name, layer in layers if isinstance(layer.weight, torch.Tensor)
        }
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()
        for name, weight in self._weights.items():
            least = min(rank, len(weight), weight[0].numel())
            down = torch.empty(least, weight[0].numel())
            nn.init.kaiming_uniform_(down, a=math.sqrt(5))
            self.down[_key(name)], self.up[_key(name)] = (
                nn.Parameter(down),
                nn.Parameter(torch.zeros(len(weight), least)),
            )

    def weights(self) -> dict[str, torch.Tensor]:
        """The changed weights by the names of the network's parameters, for `torch.func.functional_call`."""
        return {
            f"{name}.weight": weight + (self.up[_key(name)] @ self.down[_key(name)]).reshape(weight.shape)
            for name, weight in self._weights.items()
        }

    def tensors(self, model: str) -> dict[str, torch.Tensor]:
        """The factors in float16 under the keys of PEFT, as diffusers saves them; `model` is `unet`."""
        tensors = {}
        for name, weight in self._weights.items():
            down, up = self.down[_key(name)].detach(), self.up[_key(name)].detach()
            kernel = weight.shape[2:]
            tensors[f"{model}.{name}.lora_A.weight"] = down.reshape(len(down), *weight.shape[1:]).half().contiguous()
            tensors[f"{model}.{name}.lora_B.weight"] = up.reshape(*up.shape, *(1 for _ in kernel)).half().contiguous()
        return tensors

    def save(self, path: Path, model: str) -> None:
        """Write the file of these factors."""
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(model), path)
        path.chmod(0o644)


def _key(name: str) -> str:
    return name.replace(".", "/")  # a parameter's own name has no dots
