"""The network that is fine-tuned: a backbone without its head, and a linear layer; which of its parameters are trained.

Networks are built by timm and torchvision, on the CPU, in float32. Imports no engine. Any thread.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.finetuning.errors import BadFineTune, DamagedWeights
from app.finetuning.plan import BackboneSpec
from app.finetuning.settings import Mode
from app.finetuning.tensor_files import load_tensors

_TORCHVISION = {"resnet18", "resnet34", "resnet50"}


class Classifier(nn.Module):
    """A backbone and a linear layer; its state has the names of a bundle: `backbone.*`, `fc.weight`, `fc.bias`.

    It stays in eval mode: batch normalisation uses the statistics of its pretraining, and dropout is off. So a step
    depends neither on the other pictures of a batch nor on torch's global generator, and buffers never change.
    """

    def __init__(self, backbone: nn.Module, fc: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = fc
        self.eval()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits.

        Shapes:
            pixels: (B, 3, H, W), preprocessed.
            returns: (B, K).
        """
        logits: torch.Tensor = self.fc(self.backbone(pixels))
        return logits


def build_backbone(spec: BackboneSpec) -> nn.Module:
    """Build a network with random weights, from pixels (B, 3, H, W) to features (B, D).

    Raises:
        BadFineTune: It is none of the networks that can be fine-tuned.
    """
    if spec.library == "torchvision" and spec.architecture in _TORCHVISION:
        import torchvision.models

        model: nn.Module = getattr(torchvision.models, spec.architecture)(weights=None)
        model.fc = nn.Identity()
        return model.eval()
    import timm  # slow to import

    if spec.library != "timm" or not timm.is_model(spec.architecture):
        raise BadFineTune("This backbone cannot be fine-tuned. Use a model of timm, or a ResNet of torchvision.")
    network: nn.Module = timm.create_model(spec.architecture, pretrained=False, num_classes=0, **spec.options)
    return network.eval()


def load_backbone(spec: BackboneSpec, weights: Path) -> nn.Module:
    """Build a network with the weights of a safetensors file; tensors of another head in it are ignored.

    Raises:
        BadFineTune: The network cannot be fine-tuned.
        DamagedWeights: The file cannot be read or does not fit.
    """
    model = build_backbone(spec)
    _load(model, load_tensors(weights))
    return model


def first_head(num_features: int, num_classes: int, seed: int) -> nn.Linear:
    """Build the layer of `torch.manual_seed(seed); nn.Linear(D, K)` without the global generator."""
    generator = torch.Generator().manual_seed(seed)
    fc = nn.Linear(num_features, num_classes, device="meta").to_empty(device="cpu")
    nn.init.kaiming_uniform_(fc.weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(num_features)
    nn.init.uniform_(fc.bias, -bound, bound, generator=generator)
    return fc


def head_of(tensors: Mapping[str, torch.Tensor], num_classes: int | None = None) -> nn.Linear:
    """Build a layer from `fc.weight` (K, D) and `fc.bias` (K,).

    Raises:
        DamagedWeights: They are missing, or do not fit each other or K.
    """
    weight, bias = tensors.get("fc.weight"), tensors.get("fc.bias")
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise DamagedWeights("The head needs fc.weight of shape (K, D) and fc.bias of shape (K,).")
    if num_classes is not None and len(bias) != num_classes:
        raise DamagedWeights("The head has another number of classes than the plan.")
    fc = nn.Linear(weight.shape[1], weight.shape[0], device="meta").to_empty(device="cpu")
    fc.load_state_dict({"weight": weight, "bias": bias})
    return fc


def num_features_of(backbone: nn.Module, side: int) -> int:
    """Return D, by a forward of one black picture of `side` x `side` pixels.

    Raises:
        BadFineTune: The outputs are no features (B, D).
    """
    with torch.inference_mode():
        features = backbone(torch.zeros(1, 3, side, side, device=next(backbone.parameters()).device))
    if features.ndim != 2:
        raise BadFineTune("This backbone has no features for a linear head.")
    return int(features.shape[1])


def trained_names(backbone: nn.Module, mode: Mode) -> list[str]:
    """List the backbone's parameters that a mode trains, in the network's order.

    `last_block` is the last stage that has weights of two or more dimensions, and all behind it, by timm's own
    grouping of the network (`group_matcher`); for torchvision's ResNets, `layer4`.

    Raises:
        BadFineTune: The network does not say what its last block is.
    """
    names = [name for name, _ in backbone.named_parameters()]
    if mode == "head":
        return []
    if mode == "all":
        return names
    last = _last_block(backbone)
    return [name for name in names if name in last]


def freeze(classifier: Classifier, mode: Mode) -> dict[str, nn.Parameter]:
    """Let gradients reach the trained parameters alone; return those by name, the head's included."""
    trained = {f"backbone.{name}" for name in trained_names(classifier.backbone, mode)} | {"fc.weight", "fc.bias"}
    for name, parameter in classifier.named_parameters():
        parameter.requires_grad_(name in trained)
    return {name: parameter for name, parameter in classifier.named_parameters() if name in trained}


def _last_block(backbone: nn.Module) -> set[str]:
    matcher: Any = getattr(backbone, "group_matcher", None)
    parameters = dict(backbone.named_parameters())
    if matcher is None:
        last = {name for name in parameters if name.startswith("layer4.")}
        if not last:
            raise BadFineTune("The last block of this backbone is not known. Fine-tune the head or all of it.")
        return last
    from timm.models import group_parameters  # slow to import

    groups: Mapping[int, list[str]] = group_parameters(backbone, matcher(coarse=True))
    last = set()
    for group in sorted(groups, reverse=True):
        last |= set(groups[group])
        if any(parameters[name].ndim > 1 for name in groups[group]):
            break
    return last


def _load(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    wanted = model.state_dict()
    if any(name not in tensors or tensors[name].shape != value.shape for name, value in wanted.items()):
        raise DamagedWeights("The weights are of another network than the backbone.")
    model.load_state_dict({name: tensors[name] for name in wanted})
