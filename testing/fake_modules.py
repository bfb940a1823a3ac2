"""Plain modules without weights, for exports and heat maps of a node with `FakeModels`."""

import threading

import numpy as np
import torch
from torch import nn

from app.exporting.classifier import Network, Origin
from app.modelpacks.preprocessing import Preprocessing
from app.services.inference.modules import OwnHead, PlainModule
from testing.waiting import PATIENCE_S


class MeanColour(nn.Module):
    """`FakeBackbone` as a module: the mean colour, spread over the features."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("channels", torch.arange(num_features) % 3)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        channels: torch.Tensor = self.get_buffer("channels")
        return pixels.mean(dim=(2, 3))[:, channels]


class FakeModules:
    """A source of such modules.

    Attributes:
        shas: The hash of the weights by the backbone's name; default: 64 times `f`.
        loads: The names of the backbones loaded so far; None for the pack's classifier.
        gate: Loading waits while it is cleared.
        fault: Raised by loading where it is set.
    """

    def __init__(self, num_features: int, classes: list[str], preprocessing: Preprocessing) -> None:
        self.shas: dict[str, str] = {}
        self.loads: list[str | None] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self._num_features = num_features
        self._classes = tuple(classes)
        self._preprocessing = preprocessing

    def load(self, name: str) -> PlainModule:
        return self._load(name)

    def load_classifier(self) -> PlainModule:
        return self._load(None)

    def origin(self, name: str) -> Origin:
        return Origin(f"a fake {name}", licence="Apache-2.0")

    def _load(self, name: str | None) -> PlainModule:
        self.loads.append(name)
        self.gate.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        weight = np.zeros((len(self._classes), self._num_features), np.float32)
        weight[0, ::3] = weight[1, 2::3] = 0.1
        head = OwnHead(weight, np.zeros(len(self._classes), np.float32), self._classes)
        return PlainModule(
            module=MeanColour(self._num_features).eval(),
            network=Network("torchvision", "mean-colour"),
            weights_sha256=self.shas.get(name or "", "f" * 64),
            num_features=self._num_features,
            pixels=self._preprocessing.transform(),
            preprocessing=self._preprocessing.to_json(),
            is_unit=name == "clip",
            head=None if name == "resnet18" else head,
        )
