"""Stage `classifier`: torchvision's ResNet18 with the pack's classes, on drawings and their VAE reconstructions."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional as F
from torchvision.models import ResNet, resnet18

from demo_pack.build.loop import Moment, Recipe, load_average, train
from demo_pack.build.views import load_views
from demo_pack.drawing import CLASSES

RECIPE = Recipe(steps=900, learning_rate=1.5e-3, weight_decay=0.02, ema_decay=0.99)
BATCH = 64
SMOOTHING = 0.05


def new_classifier() -> ResNet:
    """The untrained network."""
    return resnet18(weights=None, num_classes=len(CLASSES))


def train_classifier(workdir: Path, steps: int | None = None) -> None:
    """Train the network on the classes of the drawings."""
    views = load_views(workdir)
    targets = torch.tensor([CLASSES.index(name) for name in views.drawings.class_names])
    torch.manual_seed(0)
    model = new_classifier().to(memory_format=torch.channels_last)

    def loss(moment: Moment) -> torch.Tensor:
        chosen = moment.rng.integers(0, len(targets), BATCH)
        pixels = views.batch(chosen, moment.rng).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels)
        return F.cross_entropy(logits.float(), targets[chosen], label_smoothing=SMOOTHING)

    train(workdir, "classifier", model, loss, RECIPE.limited(steps))


def load_classifier(workdir: Path) -> ResNet:
    """The trained network; untrained where no checkpoint is."""
    model = new_classifier()
    load_average(workdir, "classifier", model)
    return model.eval()
