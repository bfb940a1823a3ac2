"""What the loaded models of a node are: facts that the loader thread writes and every service reads.

Imports neither HTTP nor SQL, and loads nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from PIL import Image

from app.engine.clip.runner import ClipPayload, ClipTextsPayload
from app.engine.diffusion.previews import LatentColours
from app.errors import ModelNotReady
from app.node.protocol import PACK_BACKBONE
from app.services.inference.backbone_descriptions import LoadedBackbone
from app.services.inference.backbones import Resident
from app.services.inference.diffusion.adapters import NodeAdapters
from app.services.inference.diffusion.models import LoadedModel, NodeModels

# Their names in the engine.
DIFFUSION, CLIP, CLASSIFIER, BACKBONE = "diffusion", "clip", "classifier", "backbone"

T = TypeVar("T")

Preprocess = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the pixels depend on besides the request: recorded with every image."""

    device: str
    dtype: str
    num_threads: int
    deterministic: bool
    compiled: bool
    versions: dict[str, str]


@dataclass(slots=True)
class LoadedFacts:
    """Facts of loaded models; written by the engine's loader thread, read by any thread.

    Attributes:
        prepare_clip: From picture and texts to CLIP's input; like the next one called by several threads at once.
        classifier_pixels: From a picture to (3, H, W), float32, normalised for the classifier's weights.
        backbone: The pack's backbone.
        clip_backbone: CLIP's image tower as a backbone.
        preview_colours: From the diffusion model's latents to colours.
        adapters: The LoRAs and embeddings of the diffusion model; None until it is loaded, and without a folder.
        models: The diffusion models beside the default one; None until they are listed.
        needs_mask: Whether the default diffusion model repaints parts of pictures and draws nothing else.
    """

    classes: list[str] | None = None
    backbone: LoadedBackbone | None = None
    clip_backbone: LoadedBackbone | None = None
    prepare_clip: Callable[[Image.Image, Sequence[str]], ClipPayload] | None = None
    prepare_texts: Callable[[Sequence[str]], ClipTextsPayload] | None = None
    classifier_pixels: Preprocess | None = None
    preview_colours: LatentColours | None = None
    adapters: NodeAdapters | None = None
    models: NodeModels | None = None
    needs_mask: bool = False

    def find_backbone(self) -> LoadedBackbone:
        """Return the pack's backbone; raises ModelNotReady until it is loaded."""
        return loaded(self.backbone)

    def find_adapters(self) -> NodeAdapters:
        """Return the adapters; raises ModelNotReady until the diffusion model is loaded."""
        return loaded(self.adapters)

    def find_models(self) -> NodeModels:
        """Return the models beside the default one; raises ModelNotReady until they are listed."""
        return loaded(self.models)

    def default_model(self) -> LoadedModel:
        """Return the default diffusion model as far as it is loaded."""
        return LoadedModel(adapters=self.adapters, colours=self.preview_colours)

    def find_clip_backbone(self) -> LoadedBackbone:
        """Return CLIP's image tower; raises ModelNotReady until it is loaded."""
        return loaded(self.clip_backbone)


def resident_backbones(facts: LoadedFacts) -> dict[str, Resident]:
    """Return how to find the backbones that the engine loads at its start."""
    return {PACK_BACKBONE: Resident(BACKBONE, facts.find_backbone), CLIP: Resident(CLIP, facts.find_clip_backbone)}


def loaded(part: T | None) -> T:
    """Return what is loaded; raises ModelNotReady for None."""
    if part is None:
        raise ModelNotReady("The model is not loaded. /readyz has the reason.", retry_after_s=5)
    return part
