"""The batched forwards alone: what the servers' figures are held against."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
import torchvision.models
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPTokenizer
from transformers.utils import logging

ROWS = 16
TEXT_ROWS = 64

Forward = Callable[[], object]


def classify_forward(models: Path) -> Forward:
    """Return a forward of ResNet50 over 16 images."""
    model = torchvision.models.resnet50(weights=None)
    model.load_state_dict(load_file(models / "classifier" / "model.safetensors"), strict=False)
    model.eval()
    pixels = torch.rand(ROWS, 3, 224, 224)
    return lambda: model(pixels)


def clip_forward(models: Path, labels: list[list[str]] | None) -> Forward:
    """Return forwards of CLIP over 16 images and the texts of 16 label sets, or of the images alone without labels.

    Texts of like length go together, 64 at a time: faster than all in one, and so the harder comparison.
    """
    logging.disable_progress_bar()
    model = CLIPModel.from_pretrained(models / "clip").eval()
    tokenizer = CLIPTokenizer.from_pretrained(models / "clip")
    pixels = torch.rand(ROWS, 3, 224, 224)
    asked = [text for label_set in (labels or [])[:ROWS] for text in label_set]
    texts = sorted(asked, key=lambda text: len(tokenizer(text).input_ids))
    batches = [
        tokenizer(texts[first : first + TEXT_ROWS], padding=True, return_tensors="pt")
        for first in range(0, len(texts), TEXT_ROWS)
    ]

    def forward() -> None:
        model.get_image_features(pixel_values=pixels)
        for tokens in batches:
            model.get_text_features(**tokens)

    return forward


@torch.inference_mode()
def per_second(forward: Forward, *, seconds: float) -> float:
    """Return the images a second of a forward that is repeated for some time; slow ones count, as under load."""
    forward()
    count, started_at = 0, time.perf_counter()
    while time.perf_counter() < started_at + seconds:
        forward()
        count += 1
    return ROWS * count / (time.perf_counter() - started_at)
