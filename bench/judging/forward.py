"""The batched forwards alone: what the servers' figures are held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision.models
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer
from transformers.utils import logging

ROWS = 16

Forward = Callable[[], object]


def classify_forward(models: Path) -> Forward:
    """Return a forward of ResNet50 over 16 images."""
    model = torchvision.models.resnet50(weights=None)
    model.load_state_dict(load_file(models / "classifier" / "model.safetensors"), strict=False)
    model.eval()
    pixels = torch.rand(ROWS, 3, 224, 224)
    return lambda: model(pixels)


def clip_forward(models: Path, labels: list[list[str]] | None) -> Forward:
    """Return a forward of CLIP over 16 images, with the texts of 16 label sets or, without labels, of none."""
    logging.disable_progress_bar()
    model = CLIPModel.from_pretrained(models / "clip").eval()
    pixels = torch.rand(ROWS, 3, 224, 224)
    if labels is None:
        return lambda: model.get_image_features(pixel_values=pixels)
    tokenizer = CLIPTokenizer.from_pretrained(models / "clip")
    tokens = tokenizer([text for texts in labels[:ROWS] for text in texts], padding=True, return_tensors="pt")
    return lambda: model(pixel_values=pixels, **tokens)


@torch.inference_mode()
def per_second(forward: Forward, *, seconds: float) -> float:
    """Return the images a second of a forward that is repeated for some time, by the median."""
    forward()
    took: list[float] = []
    while sum(took) < seconds:
        started_at = time.perf_counter()
        forward()
        took.append(time.perf_counter() - started_at)
    return ROWS / statistics.median(took)
