"""Backbones and head as one module, and the architectures built again from their names.

timm and transformers are imported when one of their networks is built: that takes seconds. Imports nothing of the
application but this package. Runs in the child process of an export and on pool threads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from app.exporting.classifier import Classifier, Network
from app.exporting.errors import NotExportable

# The libraries raise these for names and weights that do not fit.
BUILD_ERRORS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError)

# Members of a config that do not change what the network computes; one names a folder of this machine.
_UNRELATED = ("_name_or_path", "architectures", "dtype", "model_type", "transformers_version")


class SideBySide(nn.Module):
    """Several backbones as one: the features of each, divided by their L2 norm, in one row."""

    def __init__(self, backbones: Sequence[nn.Module]) -> None:
        """Take the backbones in the order of their features; each in eval mode."""
        super().__init__()
        self.parts = nn.ModuleList(backbones)
        self.eval()

    def forward(self, *pixels: torch.Tensor) -> torch.Tensor:
        """Return the features.

        Shapes:
            pixels: for each backbone (N, 3, H_b, W_b), float32, normalised.
            returns: (N, sum of D_b), float32.

        Source:
            `app.training.from_prompts.combine`, which the heads are trained on.
        """
        pairs = zip(self.parts, pixels, strict=True)
        return torch.cat([functional.normalize(features_of(part, given), dim=1) for part, given in pairs], dim=1)


def side_by_side(backbones: Sequence[nn.Module]) -> nn.Module:
    """Return the only backbone itself, or several as one."""
    return backbones[0] if len(backbones) == 1 else SideBySide(backbones)


def modules_of(backbone: nn.Module) -> list[nn.Module]:
    """Return what `side_by_side` was made of."""
    return list(backbone.parts) if isinstance(backbone, SideBySide) else [backbone]


class Probabilities(nn.Module):
    """A backbone, or several side by side, a linear head and the softmax."""

    def __init__(self, classifier: Classifier, backbone: nn.Module | None = None) -> None:
        """Take the classifier's parts, or its head and another backbone."""
        super().__init__()
        self.backbone = classifier.backbone if backbone is None else backbone
        self.head = head_of(classifier)
        self.normalise = classifier.facts.normalise

    def forward(self, *pixels: torch.Tensor) -> torch.Tensor:
        """Return class probabilities.

        Shapes:
            pixels: for each backbone (N, 3, H, W), float32, normalised.
            returns: (N, K), float32; rows sum to 1.
        """
        return self.logits(features_of(self.backbone, *pixels)).softmax(dim=1)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return the head's scores.

        Shapes:
            features: (N, D), float32.
            returns: (N, K), float32.
        """
        scores: torch.Tensor = self.head(functional.normalize(features, dim=1) if self.normalise else features)
        return scores


def features_of(backbone: nn.Module, *pixels: torch.Tensor) -> torch.Tensor:
    """Run a backbone, or several side by side.

    Shapes:
        pixels: for each backbone (N, 3, H, W), float32, normalised.
        returns: (N, D), float32.
    """
    output = backbone(*pixels)
    features: torch.Tensor = output if isinstance(output, torch.Tensor) else output.image_embeds
    return features


def head_of(classifier: Classifier) -> nn.Linear:
    """Build the head's layer, on the backbone's device, without drawing random numbers."""
    num_classes, num_features = classifier.weight.shape
    head = nn.Linear(num_features, num_classes, device="meta")
    first = next(classifier.backbone.parameters(), torch.zeros(0))
    head.weight = nn.Parameter(torch.tensor(classifier.weight, device=first.device), requires_grad=False)
    head.bias = nn.Parameter(torch.tensor(classifier.bias, device=first.device), requires_grad=False)
    return head.eval()


def rebuild(network: Network, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """Build a backbone and give it its weights, on the CPU, in eval mode. Draws from torch's global generator.

    Raises:
        NotExportable: The library has no such architecture, or the tensors do not fit it.
    """
    try:
        backbone = build(network)
        backbone.load_state_dict(tensors, strict=True)
    except BUILD_ERRORS as error:
        raise NotExportable(
            f"The backbone cannot be built again as {network.name} of the installed {network.library}."
        ) from error
    return backbone.eval().requires_grad_(False)


def build(network: Network, num_classes: int = 0) -> nn.Module:
    """Build an architecture with random weights; 0 classes: it returns features.

    Raises:
        RuntimeError, ValueError, KeyError, TypeError, AttributeError: The library has no such architecture.
    """
    if network.library == "timm":
        import timm

        if not timm.is_model(network.name):  # `hf-hub:` would be fetched
            raise ValueError("timm has no such architecture.")
        timm_model: nn.Module = timm.create_model(
            network.name, pretrained=False, num_classes=num_classes, **network.options
        )
        return timm_model
    if network.library == "torchvision":
        import torchvision.models

        model: nn.Module = torchvision.models.get_model(network.name, weights=None, num_classes=num_classes or 1)
        if num_classes == 0:
            model.fc = nn.Identity()
        return model
    if network.library != "transformers":
        raise ValueError("Several backbones are not one network.")
    return _build_clip_tower(network.options)


def clip_tower(clip_model: Any) -> tuple[Network, nn.Module]:
    """Take the image tower out of a `CLIPModel`; it shares the weights.

    Returns:
        How to build it again, and a `CLIPVisionModelWithProjection` in eval mode.

    Raises:
        NotExportable: The model has other weights than CLIP.
    """
    prefixes = ("vision_model.", "visual_projection.")
    tensors = {name: tensor for name, tensor in clip_model.state_dict().items() if name.startswith(prefixes)}
    config = clip_model.config.vision_config.to_diff_dict()
    options = {name: value for name, value in config.items() if name not in _UNRELATED}
    try:
        tower = _build_clip_tower(options)
        tower.load_state_dict(tensors, strict=True, assign=True)
    except BUILD_ERRORS as error:
        raise NotExportable("The model is not a CLIP model of the installed transformers.") from error
    return Network("transformers", "CLIPVisionModelWithProjection", options), tower.eval().requires_grad_(False)


def _build_clip_tower(config: Mapping[str, Any]) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    tower: nn.Module = CLIPVisionModelWithProjection(CLIPVisionConfig(**config))
    return tower
