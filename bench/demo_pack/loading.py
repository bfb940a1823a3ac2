"""The shipped pack through diffusers, transformers and torchvision alone: none of the service's own loading code."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torchvision.models import resnet18
from transformers import CLIPModel, CLIPProcessor
from transformers.utils.logging import disable_progress_bar

from app.modelpacks.preprocessing import Preprocessing


@dataclass(frozen=True)
class Pack:
    """The loaded pack.

    Attributes:
        classes: The classifier's, in the order of its logits.
        preprocess: Picture (RGB) to (3, 128, 128), for the classifier.
        load_seconds: What loading all of it took, imports left out.
    """

    revision: str
    classes: tuple[str, ...]
    pipeline: Any
    clip: Any
    processor: Any
    classifier: nn.Module
    preprocess: Callable[[Image.Image], torch.Tensor]
    load_seconds: float


def load_pack(folder: Path) -> Pack:
    """Load every part in float32 on the CPU, in eval mode."""
    disable_progress_bar()
    started = time.perf_counter()
    pipeline = StableDiffusionPipeline.from_pretrained(folder / "diffusion", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    clip = CLIPModel.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    processor = CLIPProcessor.from_pretrained(folder / "clip")
    config = json.loads((folder / "classifier" / "config.json").read_text())
    classifier = _load_classifier(folder / "classifier" / "model.safetensors", len(config["classes"]))
    seconds = time.perf_counter() - started
    return Pack(
        revision=json.loads((folder / "manifest.json").read_text())["revision"],
        classes=tuple(config["classes"]),
        pipeline=pipeline,
        clip=clip,
        processor=processor,
        classifier=classifier,
        preprocess=Preprocessing.from_config(config["preprocessing"]).transform(),
        load_seconds=seconds,
    )


def _load_classifier(path: Path, num_classes: int) -> nn.Module:
    model: nn.Module = resnet18(weights=None, num_classes=num_classes)
    weights = load_file(path)
    model.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in weights.items()})
    return model.eval()
