"""What CLIP, ResNet18 and other networks say of pictures, in batches. Knows nothing of what is right.

Shape letters: `N` pictures, `K` labels or classes, `D` width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import nn

from bench.demo_pack.loading import Pack
from bench.demo_pack.metrics import Scores

BATCH = 50


@torch.inference_mode()
def clip_probabilities(pack: Pack, images: Sequence[Image.Image], labels: Sequence[str]) -> Scores:
    """Ask CLIP how well each label fits each picture, as `/clip-score` does. **Shapes**: (N, K), rows sum to 1."""
    parts = []
    for start in range(0, len(images), BATCH):
        chunk = list(images[start : start + BATCH])
        inputs = pack.processor(text=list(labels), images=chunk, padding=True, return_tensors="pt")
        parts.append(pack.clip(**inputs).logits_per_image.softmax(dim=1).numpy())
    return np.concatenate(parts)


@torch.inference_mode()
def clip_similarity(pack: Pack, images: Sequence[Image.Image], captions: Sequence[str]) -> Scores:
    """Compare every caption with every picture. **Shapes**: (captions, pictures), cosines."""
    inputs = pack.processor(text=list(captions), images=list(images), padding=True, return_tensors="pt")
    similarity: Scores = pack.clip(**inputs).logits_per_text.div(pack.clip.logit_scale.exp()).numpy()
    return similarity


@torch.inference_mode()
def network_outputs(
    model: nn.Module, preprocess: Callable[[Image.Image], torch.Tensor], images: Sequence[Image.Image]
) -> Scores:
    """Run a torchvision network over pictures. **Shapes**: (N, K) logits, or (N, D) features without a head."""
    parts = []
    for start in range(0, len(images), BATCH):
        pixels = torch.stack([preprocess(image) for image in images[start : start + BATCH]])
        parts.append(model(pixels).float().numpy())
    return np.concatenate(parts)


def softmax(logits: Scores) -> Scores:
    """Turn logits into probabilities. **Shapes**: (N, K), rows sum to 1."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: Scores = powers / powers.sum(axis=1, keepdims=True)
    return probabilities
