"""Backbones as plain modules, for exports and heat maps: on the CPU, as the library builds them, with their origin.

The modules that the engine serves are optimised in place and belong to its device thread. Imports neither HTTP nor
SQL, and no engine. `load` and `load_classifier` take seconds and run on pool threads; several may load at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from PIL import Image
from torch import nn

from app.engine.clip.pixels import pixels_by
from app.exporting.classifier import Network, Origin
from app.exporting.networks import clip_tower
from app.finetuning.checkpoints import load_fine_tuned
from app.finetuning.errors import DamagedWeights
from app.modelpacks.loading import load_backbone, load_classifier, load_clip
from app.modelpacks.pack import ModelPack, PackError, sha256_of
from app.modelpacks.photo import PHOTO, ensure_photo
from app.modelpacks.preprocessing import Preprocessing
from app.modelpacks.timm_models import FOLDER, WEIGHTS, load_timm_model, read_timm_model
from app.node.protocol import FINE_TUNED, PACK_BACKBONE
from app.services.inference.backbone_sources import CLIP_BACKBONE

_CPU: Final = torch.device("cpu")

# SPDX identifiers of the names that the hub has in lower case.
_SPDX: Final = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
}
_LITE0: Final = Origin(
    "EfficientNet-Lite0 of the TensorFlow authors, trained on ImageNet-1k, as timm has it",
    base_model="timm/tf_efficientnet_lite0.in1k",
    licence="Apache-2.0",
)
_TORCHVISION: Final = "Copyright (c) Soumith Chintala 2016, All rights reserved."
# By part. Source: the pinned files of `app/modelpacks/sd15.py`, and the licences of their projects.
_SD15: Final = {
    "clip": Origin(
        "OpenAI's CLIP ViT-B/32", "openai/clip-vit-base-patch32", licence="MIT", notices="Copyright (c) 2021 OpenAI"
    ),
    "backbone": Origin("torchvision's ResNet18, trained on ImageNet-1k", licence="BSD-3-Clause", notices=_TORCHVISION),
    "classifier": Origin(
        "torchvision's ResNet50 V2, trained on ImageNet-1k", licence="BSD-3-Clause", notices=_TORCHVISION
    ),
}


@dataclass(frozen=True, slots=True)
class OwnHead:
    """The classifier that a network's weights have themselves: (K, D) and (K,), float32, and K names."""

    weight: np.ndarray
    bias: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlainModule:
    """A backbone on the CPU, in eval mode, without gradients, not optimised.

    Attributes:
        module: (N, 3, H, W) to (N, D), or to an object whose `image_embeds` are that.
        pixels: Picture (RGB) to (3, H, W), float32; called by several threads.
        preprocessing: The settings of `pixels`, as `Preprocessing.to_json`.
        is_unit: Whether the node divides the features by their L2 norm before heads get them.
        head: Its own classifier; None where it has none.
    """

    module: nn.Module
    network: Network
    weights_sha256: str
    num_features: int
    pixels: Callable[[Image.Image], torch.Tensor]
    preprocessing: Mapping[str, Any]
    is_unit: bool = False
    head: OwnHead | None = None


class PlainModules(Protocol):
    """Where plain modules come from; any thread."""

    def load(self, name: str) -> PlainModule:
        """Load a backbone by its name; raises an exception with a `detail` where that is impossible."""

    def load_classifier(self) -> PlainModule:
        """Load the pack's classifier, with its head; raises as `load`."""

    def origin(self, name: str) -> Origin:
        """Return where a backbone's weights are from, without loading them; raises as `load`."""


class NodeModules:
    """The plain modules of a node: its pack, `photo`, folders in the layout of timm's hub, and fine-tuned models."""

    def __init__(self, find: Callable[[], ModelPack], models_dir: Path, trained_dir: Path | None = None) -> None:
        """Read nothing yet.

        Args:
            find: Returns the pack.
            models_dir: Contains the backbones' folder.
            trained_dir: Contains a folder for each trained model; None: there is none.
        """
        self._find = find
        self._folder = models_dir / FOLDER
        self._trained_dir = trained_dir

    def load(self, name: str) -> PlainModule:
        """Load a backbone by its name.

        Raises:
            PackError: Its files are missing, broken, or of another architecture.
            NotExportable: The pack's CLIP has other weights than CLIP.
        """
        if name == PACK_BACKBONE:
            return self._load_resnet()
        if name.startswith(FINE_TUNED):
            return self._load_fine_tuned(name)
        return self._load_clip() if name == CLIP_BACKBONE else self._load_timm(name)

    def load_classifier(self) -> PlainModule:
        """Load the pack's classifier, with its head; raises PackError."""
        pack = self._find()
        parts = load_classifier(pack, _CPU)
        layer: Any = parts.model.fc
        parts.model.fc = nn.Identity()
        return PlainModule(
            module=parts.model,
            network=Network("torchvision", parts.architecture),
            weights_sha256=sha256_of(pack.part("classifier") / "model.safetensors"),
            num_features=int(layer.in_features),
            pixels=parts.preprocess,
            preprocessing=parts.preprocessing.to_json(),
            head=_own_head(layer, parts.classes),
        )

    def origin(self, name: str) -> Origin:
        """Return where a backbone's weights are from; raises PackError."""
        if name == PHOTO:
            return _LITE0
        if name in (PACK_BACKBONE, CLIP_BACKBONE):
            return self._origin_in_pack("clip" if name == CLIP_BACKBONE else "backbone")
        if name.startswith(FINE_TUNED):
            return Origin("weights that were fine-tuned on this node; the lineage names those that they started from")
        model = read_timm_model(name, self._folder / name)
        licence = None if model.licence in (None, "other") else _SPDX.get(str(model.licence), model.licence)
        return Origin(f"the node's folder {name}, in the layout of timm's hub", model.hub_id, licence)

    def _origin_in_pack(self, part: str) -> Origin:
        pack = self._find()
        if not pack.part(part).is_dir():
            part = "classifier"  # as `load_backbone` does
        if part in pack.overrides:
            return Origin("a local folder of the node")
        if pack.name == "sd15":
            return _SD15[part]
        return Origin(f"the pack {pack.name} {pack.revision} of Foxhound", licence=pack.licence)

    def _load_resnet(self) -> PlainModule:
        parts = load_backbone(self._find(), _CPU)
        return PlainModule(
            module=parts.model,
            network=Network("torchvision", parts.architecture),
            weights_sha256=parts.weights_sha256,
            num_features=parts.num_features,
            pixels=parts.preprocess,
            preprocessing=parts.preprocessing.to_json(),
        )

    def _load_clip(self) -> PlainModule:
        parts = load_clip(self._find(), _CPU)
        network, tower = clip_tower(parts.model)
        processor = parts.processor.image_processor
        try:
            preprocessing = Preprocessing.from_processor(processor)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PackError("The pack's CLIP cannot be a backbone: its processor is of another kind.") from error
        return PlainModule(
            module=tower,
            network=network,
            weights_sha256=parts.weights_sha256,
            num_features=int(parts.model.config.projection_dim),
            pixels=pixels_by(processor),
            preprocessing=preprocessing.to_json(),
            is_unit=True,
        )

    def _load_fine_tuned(self, name: str) -> PlainModule:
        path = (self._trained_dir or Path()) / name.removeprefix(FINE_TUNED) / "model.safetensors"
        try:
            model = load_fine_tuned(path)
        except DamagedWeights as error:
            raise PackError(error.detail) from error
        built = model.facts["backbone"]
        return PlainModule(
            module=model.backbone,
            network=Network(built["library"], built["architecture"], dict(built.get("options", {}))),
            weights_sha256=sha256_of(path),
            num_features=model.head.in_features,
            pixels=model.preprocessing.transform(),
            preprocessing=model.preprocessing.to_json(),
        )

    def _load_timm(self, name: str) -> PlainModule:
        folder = self._folder / name
        if name == PHOTO:
            ensure_photo(folder)
        model = read_timm_model(name, folder)
        parts = load_timm_model(model, _CPU)
        has_head = isinstance(parts.head, nn.Linear) and model.classes is not None
        return PlainModule(
            module=parts.model,
            network=Network("timm", model.architecture, dict(model.options)),
            weights_sha256=sha256_of(folder / WEIGHTS),
            num_features=parts.num_features,
            pixels=parts.preprocess,
            preprocessing=model.preprocessing.to_json(),
            head=_own_head(parts.head, model.classes or ()) if has_head else None,
        )


def _own_head(layer: Any, classes: tuple[str, ...]) -> OwnHead:
    weight: torch.Tensor = layer.weight.detach()
    bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
    return OwnHead(weight.numpy(), bias.numpy(), classes)
