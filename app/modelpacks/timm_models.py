"""Backbones from folders in the layout of timm's hub: `config.json` and `model.safetensors`.

timm is imported when the first of them is loaded: that takes seconds. Imports no engine. `read_timm_model` is called
from any thread, `load_timm_model` runs on the thread that loads backbones.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from app.modelpacks.pack import PackError
from app.modelpacks.preprocessing import Preprocessing

WEIGHTS, CONFIG = "model.safetensors", "config.json"

# Below the folder of packs, one folder for each backbone.
FOLDER = "backbones"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# Arguments of a model's constructor that a config may set; others could name files.
_MODEL_ARGS = {"img_size"}

# Parts of timm's tags that name collections of photographs.
_PHOTOGRAPHS = ("in1k", "in12k", "in21k", "in22k", "laion", "openai", "webli", "lvd", "datacomp", "dfn", "yfcc")

_MAX_LOGIT_DIFFERENCE = 1e-4


@dataclass(frozen=True, slots=True)
class TimmModel:
    """What a folder's files say, without loading the weights.

    Attributes:
        num_features: D; None where the config does not say.
        num_classes: K of the weights; 0: they have no head.
        classes: Names in the order of the logits; None where they are not known.
        trained_on_photographs: Whether the weights' tag names a collection of photographs.
        num_parameters: Trained numbers in the file, the head included.
        num_bytes: Size of the weights' file.
        options: Arguments for the constructor.
        licence: Of the weights, in the hub's form (`apache-2.0`); None where the config does not say.
        hub_id: Their repository on Hugging Face's hub; None where the config does not say.
    """

    name: str
    folder: Path
    architecture: str
    preprocessing: Preprocessing
    num_features: int | None
    num_classes: int
    classes: tuple[str, ...] | None
    trained_on_photographs: bool
    num_parameters: int
    num_bytes: int
    options: Mapping[str, Any]
    licence: str | None = None
    hub_id: str | None = None


@dataclass(frozen=True, slots=True)
class TimmComponents:
    """A loaded model, on the device, in eval mode.

    Attributes:
        model: (B, 3, H, W) to (B, D).
        head: (B, D) to (B, K); None where the weights have none, or one that is not a layer behind the features.
        preprocess: Image (RGB) to (3, crop, crop).
    """

    model: nn.Module
    head: nn.Module | None
    preprocess: Callable[[Image.Image], torch.Tensor]
    num_features: int


def read_timm_model(name: str, folder: Path) -> TimmModel:
    """Read a folder's config and the header of its weights.

    Raises:
        PackError: A file is missing or not what it should be.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
        shapes = _read_shapes(folder / WEIGHTS)
        num_bytes = (folder / WEIGHTS).stat().st_size
        return _interpret(name, folder, config, shapes, num_bytes)
    except FileNotFoundError as error:
        raise PackError(f"{name}: {CONFIG} or {WEIGHTS} is missing. {_remedy(name)}") from error
    except (OSError, SafetensorError) as error:
        raise PackError(f"{name}: {CONFIG} or {WEIGHTS} cannot be read. {_remedy(name)}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackError(f"{name}: {CONFIG} does not describe a model that Foxhound can use.") from error


def load_timm_model(source: TimmModel, device: torch.device) -> TimmComponents:
    """Load a model and take its head off.

    Raises:
        PackError: timm has no such architecture, or the weights do not fit it.
    """
    import timm

    if not timm.is_model(source.architecture):
        raise PackError(f"{source.name}: the installed timm has no architecture of the name in {CONFIG}.")
    try:
        model: Any = timm.create_model(
            source.architecture, pretrained=False, num_classes=source.num_classes, **source.options
        )
        model.load_state_dict(load_file(source.folder / WEIGHTS), strict=True)
        model = model.eval().requires_grad_(False)
        head = _take_head_off(model, source) if source.num_classes else None
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackError(
            f"{source.name}: {WEIGHTS} is broken or of another architecture. {_remedy(source.name)}"
        ) from error
    return TimmComponents(
        model=model.to(device),
        head=None if head is None else head.to(device),
        preprocess=source.preprocessing.transform(),
        num_features=int(model.num_features),
    )


@torch.inference_mode()
def _take_head_off(model: Any, source: TimmModel) -> nn.Module | None:
    """Make `model` return features; return its last layer, if features and that layer give the model's logits."""
    trial = torch.randn(2, 3, *[source.preprocessing.crop] * 2, generator=torch.Generator().manual_seed(0))
    logits = model(trial)
    head = model.get_classifier()
    model.reset_classifier(0)
    if not isinstance(head, nn.Linear):
        return None
    features = model(trial)
    if features.ndim != 2 or features.shape[1] != head.in_features:
        return None
    difference = (head(features) - logits).abs().max()
    return head if difference <= _MAX_LOGIT_DIFFERENCE * logits.abs().max() else None


def _interpret(
    name: str, folder: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], num_bytes: int
) -> TimmModel:
    pretrained = {**config, **config.get("pretrained_cfg", {})}
    num_classes = int(config.get("num_classes", pretrained.get("num_classes", 0)))
    options = {str(key): value for key, value in config.get("model_args", {}).items()}
    if set(options) - _MODEL_ARGS:
        raise ValueError("The config has arguments that are not supported.")
    if "global_pool" in config:
        options["global_pool"] = str(config["global_pool"])
    tag = f"{pretrained.get('tag', '')}.{name}"
    num_features = config.get("num_features")
    return TimmModel(
        name=name,
        folder=folder,
        architecture=str(config["architecture"]),
        preprocessing=Preprocessing.from_timm(pretrained),
        num_features=None if num_features is None else int(num_features),
        num_classes=num_classes,
        classes=_class_names(pretrained, num_classes, tag),
        trained_on_photographs=any(part in tag for part in _PHOTOGRAPHS),
        num_parameters=sum(math.prod(shape) for key, shape in shapes.items() if not _is_statistic(key)),
        num_bytes=num_bytes,
        options=options,
        licence=_text(pretrained.get("license")),
        hub_id=_text(pretrained.get("hf_hub_id")),
    )


def _class_names(config: Mapping[str, Any], num_classes: int, tag: str) -> tuple[str, ...] | None:
    names = config.get("label_names")
    if names is None and num_classes == 1000 and "in1k" in tag:
        from torchvision.models import ResNet50_Weights

        names = ResNet50_Weights.IMAGENET1K_V2.meta["categories"]
    if names is None:
        return None
    if len(names) != num_classes or not all(isinstance(label, str) for label in names):
        raise ValueError("The class names do not fit the number of classes.")
    return tuple(names)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, framework="pt") as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 - no mapping


def _is_statistic(key: str) -> bool:
    return key.endswith(("running_mean", "running_var", "num_batches_tracked"))


def _remedy(name: str) -> str:
    return f"Run `foxhound models fetch backbone {name}`."
