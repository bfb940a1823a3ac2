"""Stage `classifier`: torchvision's ResNet18 with the pack's classes, on drawings and their VAE reconstructions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.models import ResNet, resnet18

from app.modelpacks.demo.build.clip import jittered, pictures, reconstructions
from app.modelpacks.demo.build.drawings import load_set
from app.modelpacks.demo.build.workdir import TORCH_SEED, Budget, cosine, load, log, save
from app.modelpacks.demo.drawing import CLASSES

BATCH = 64
LEARNING_RATE = 1.5e-3
SMOOTHING = 0.05
CHECKPOINT_EVERY = 100


def new_classifier() -> ResNet:
    """The untrained network."""
    return resnet18(weights=None, num_classes=len(CLASSES))


def train_step(model: ResNet, optimizer: torch.optim.Optimizer, pixels: torch.Tensor, labels: torch.Tensor) -> float:
    """One optimizer step; returns the loss."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(pixels.to(memory_format=torch.channels_last))
    loss = F.cross_entropy(logits.float(), labels, label_smoothing=SMOOTHING)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def train(workdir: Path, minutes: float) -> None:
    """Train, or go on training, until `minutes` of this stage are used."""
    drawings, rebuilt, path = load_set(workdir, "train"), reconstructions(workdir), workdir / "classifier.pt"
    targets = torch.tensor([CLASSES.index(name) for name in drawings.class_names])
    torch.manual_seed(TORCH_SEED)
    model = new_classifier().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    step, spent = 0, 0.0
    if state := load(path):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    rng, budget = np.random.default_rng([TORCH_SEED, step]), Budget(minutes, spent)
    while budget.share < 1:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(budget.share)
        chosen = rng.integers(0, len(drawings.images), BATCH)
        pixels = jittered(pictures(drawings, rebuilt, chosen, rng), rng)
        loss = train_step(model, optimizer, pixels, targets[chosen])
        step += 1
        if step % CHECKPOINT_EVERY == 0 or budget.share >= 1:
            log(workdir, "classifier", step=step, loss=round(loss, 3), minutes=round(budget.used / 60, 1))
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save(path, {**parts, "step": step, "spent": budget.used})


def load_classifier(workdir: Path) -> ResNet:
    """The trained network; untrained where no checkpoint is."""
    model = new_classifier()
    if state := load(workdir / "classifier.pt"):
        model.load_state_dict(state["model"])
    return model.eval()
