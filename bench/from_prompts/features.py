"""The features of pictures by the three backbones that every node with the demo pack has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision.models import resnet18

from app.engine.kernels.cpu_efficientnet import optimize_efficientnet
from app.engine.kernels.cpu_resnet import optimize_resnet
from app.modelpacks.photo import PHOTO, ensure_photo
from app.modelpacks.timm_models import load_timm_model, read_timm_model
from app.training.from_prompts import CLIP
from app.training.probe import Features
from bench.demo_pack.loading import Pack
from bench.demo_pack.reading import network_outputs

Reader = Callable[[Sequence[Image.Image]], Features]


def make_readers(pack: Pack, folder: Path) -> dict[str, Reader]:
    """Load the backbones; each reader takes N images (RGB) and returns (N, D) float32."""
    ensure_photo(folder)
    photo = load_timm_model(read_timm_model(PHOTO, folder), torch.device("cpu"))
    backbone: nn.Module = resnet18(weights=None, num_classes=len(pack.classes))
    backbone.load_state_dict(pack.classifier.state_dict())
    backbone.fc = nn.Identity()
    resnet, efficientnet = optimize_resnet(backbone.eval()), optimize_efficientnet(photo.model)

    def read_clip(images: Sequence[Image.Image]) -> Features:
        def preprocess(image: Image.Image) -> torch.Tensor:
            pixels: torch.Tensor = pack.processor(images=image, return_tensors="pt")["pixel_values"][0]
            return pixels

        return network_outputs(_ClipImages(pack.clip), preprocess, images)

    return {
        "resnet18": lambda images: network_outputs(resnet, pack.preprocess, images),
        PHOTO: lambda images: network_outputs(efficientnet, photo.preprocess, images),
        CLIP: read_clip,
    }


class _ClipImages(nn.Module):
    """CLIP's image tower with its projection: (B, 3, H, W) to (B, D)."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self._clip = clip

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed pictures."""
        return _embeddings(self._clip.get_image_features(pixel_values=pixels))  # type: ignore[operator]


def _embeddings(outputs: object) -> torch.Tensor:
    """Return the projected embeddings, which newer releases of transformers wrap."""
    found = getattr(outputs, "pooler_output", outputs)
    assert isinstance(found, torch.Tensor)
    return found


@torch.inference_mode()
def embed_texts(pack: Pack, texts: Sequence[str]) -> Features:
    """Embed labels. **Shapes**: (K, D), float32."""
    inputs = pack.processor.tokenizer(list(texts), padding=True, return_tensors="pt")
    rows: Features = _embeddings(pack.clip.get_text_features(**inputs)).float().numpy()
    return rows


def logit_scale(pack: Pack) -> float:
    """Return CLIP's logit scale as a factor."""
    return float(pack.clip.logit_scale.exp())
