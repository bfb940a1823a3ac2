"""Tiny classifiers of each library, with random weights from a seed."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import nn

from app.exporting.classifier import Classifier, ModelFacts, Network, Origin, Part
from app.exporting.networks import side_by_side

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


@pytest.fixture(scope="session")
def combined(classifier: Make) -> Make:
    """Make a classifier on two tiny networks of timm, `a` and `b`, whose inputs have 32 and 40 pixels."""

    def make(**changes: Any) -> Classifier:
        first, second = classifier("test_resnet"), classifier("test_efficientnet")
        settings = (PREPROCESSING, {**PREPROCESSING, "crop": 40})
        origins = (Origin("random numbers", licence="Apache-2.0"), Origin("somewhere"))
        parts = tuple(
            Part(name, made.facts.network, given, origin)
            for name, made, given, origin in zip("ab", (first, second), settings, origins, strict=True)
        )
        made = make_facts(
            **{
                "network": Network("combined", "a + b"),
                "preprocessing": {part.name: part.preprocessing for part in parts},
                "num_features": first.facts.num_features + second.facts.num_features,
                "origin": Origin("both"),
                "parts": parts,
                **changes,
            }
        )
        weight = np.random.default_rng(1).normal(size=(len(made.classes), made.num_features)).astype(np.float32)
        backbone = side_by_side([first.backbone, second.backbone])
        return Classifier(made, backbone, weight, np.zeros(len(made.classes), np.float32))

    return make
