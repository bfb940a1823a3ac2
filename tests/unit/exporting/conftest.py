"""Tiny classifiers of each library, with random weights from a seed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from app.exporting.classifier import Classifier, ModelFacts, Network, Origin

PREPROCESSING = {
    "library": "timm",
    "resize": 36,
    "crop": 32,
    "crop_mode": "center",
    "crop_pct": 0.9,
    "interpolation": "bicubic",
    "mean": [0.5, 0.4, 0.3],
    "std": [0.25, 0.5, 0.5],
}

Make = Callable[..., Classifier]


def make_facts(**changes: Any) -> ModelFacts:
    values: Mapping[str, Any] = {
        "name": "fox-or-dog",
        "network": Network("timm", "test_resnet"),
        "preprocessing": PREPROCESSING,
        "classes": ("fox", "dog", "cat"),
        "num_features": 96,
        "normalise": False,
        "origin": Origin("random numbers", licence="Apache-2.0"),
    }
    return ModelFacts(**{**values, **changes})


@pytest.fixture(scope="session")
def facts() -> Callable[..., ModelFacts]:
    return make_facts


@pytest.fixture(scope="session")
def classifier() -> Make:
    """Make a classifier on a tiny network of timm, or on a given backbone; keywords change its facts."""

    def make(architecture: str = "test_resnet", backbone: nn.Module | None = None, **changes: Any) -> Classifier:
        if backbone is None:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                options = changes["network"].options if "network" in changes else {}
                backbone = timm.create_model(architecture, num_classes=0, **options).eval().requires_grad_(False)
        side = changes.get("preprocessing", PREPROCESSING)["crop"]
        with torch.no_grad():
            num_features = backbone(torch.zeros(1, 3, side, side)).shape[1]
        made = make_facts(**{"network": Network("timm", architecture), "num_features": num_features, **changes})
        rng = np.random.default_rng(0)
        weight = rng.normal(size=(len(made.classes), num_features)).astype(np.float32)
        return Classifier(made, backbone, weight, rng.normal(size=len(made.classes)).astype(np.float32))

    return make
