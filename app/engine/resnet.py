"""ResNets and other image networks as models of the engine: classification, and features for training heads.

Takes networks of torchvision and timm; handles no image files and no class names. Runs on the device thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from app.engine.kernels.cpu_efficientnet import optimize_efficientnet
from app.engine.kernels.cpu_resnet import optimize_resnet
from app.engine.request import EngineRequest
from app.errors import InferenceFailed


@dataclass(frozen=True, slots=True)
class ClassifyPayload:
    """One image to classify; pixels: (3, H, W), float32, preprocessed for the weights."""

    pixels: torch.Tensor


@dataclass(frozen=True, slots=True)
class Classification:
    """Probabilities: (K,), float32, in the order of the model's classes; they sum to 1."""

    probabilities: np.ndarray


@dataclass(frozen=True, slots=True)
class FeaturePayload:
    """One image whose features are extracted; pixels: (3, H, W), float32, preprocessed for the weights."""

    pixels: torch.Tensor


class _ResNetRunner:
    """One forward of a network over the images of a batch.

    Shapes:
        request.state: after the step, the network's outputs for its image.
    """

    def __init__(self, *, model: nn.Module, device: torch.device) -> None:
        """Take the network on the device; sets eval mode, so that BatchNorm neither updates nor mixes images."""
        self._dtype = next(model.parameters()).dtype
        self._model = _optimized(model.eval()) if device.type == "cpu" else model.eval()
        self._device = device

    def prepare(self, request: EngineRequest) -> None:
        """Do nothing: the image was preprocessed before the request was queued."""
        assert isinstance(request.payload, ClassifyPayload | FeaturePayload)

    @torch.inference_mode()
    def step(self, requests: Sequence[EngineRequest]) -> None:
        """Run the network once for all requests."""
        payloads: list[ClassifyPayload | FeaturePayload] = [request.payload for request in requests]  # type: ignore[misc]
        images = torch.stack([payload.pixels for payload in payloads]).to(self._device, self._dtype)
        for request, outputs in zip(requests, self._model(images).float().cpu(), strict=True):
            request.state = outputs

    def is_finished(self, request: EngineRequest) -> bool:
        """Return True: one step is all."""
        return True


class ClassifierRunner(_ResNetRunner):
    """A ResNet with its head."""

    def finish(self, request: EngineRequest) -> Classification:
        """Turn the logits (K,) into probabilities; raises InferenceFailed where one is not finite."""
        return Classification(_finite(request.state.softmax(dim=0)))


class BackboneRunner(_ResNetRunner):
    """A network without its head (`fc` is the identity), and the head apart where it has one."""

    def __init__(self, *, model: nn.Module, device: torch.device, head: nn.Module | None = None) -> None:
        """Take the network, (B, 3, H, W) to (B, D), and its head, (B, D) to (B, K), on the device."""
        super().__init__(model=model, device=device)
        self._head = None if head is None else head.eval()

    @torch.inference_mode()
    def finish(self, request: EngineRequest) -> np.ndarray | Classification:
        """Return the features (D,), float32, or the head's probabilities where the request is to classify.

        Raises:
            InferenceFailed: A value is not finite.
        """
        if isinstance(request.payload, FeaturePayload):
            return _finite(request.state)
        assert self._head is not None
        logits = self._head(request.state[None].to(self._device, self._dtype))[0]
        return Classification(_finite(logits.float().softmax(dim=0).cpu()))


def _optimized(model: nn.Module) -> nn.Module:
    """Replace the layers of a network that is known; return another one unchanged."""
    replaced = optimize_resnet(model)
    return optimize_efficientnet(model) if replaced is model else replaced


def _finite(values: torch.Tensor) -> np.ndarray:
    if not torch.isfinite(values).all():
        raise InferenceFailed("The model returned a value that is not a finite number.")
    array: np.ndarray = values.numpy().copy()
    return array
