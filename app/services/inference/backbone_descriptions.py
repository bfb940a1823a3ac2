"""What a backbone is to its callers: its description, its input, and several backbones as one.

Imports no engine. Plain values; any thread.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image

from app.engine.runner import Runner
from app.error_codes import ErrorCode
from app.errors import Invalid
from app.node.combined import MAX_PARTS, combined_facts, part_names
from app.node.protocol import BackboneFacts

TrainedOn = Literal["drawings", "photographs"]


@dataclass(frozen=True, slots=True)
class NetworkFile:
    """A backbone that is one network of timm or torchvision, so that it can be fine-tuned.

    Attributes:
        library: `timm` or `torchvision`.
        architecture: The name that the library's constructor takes.
        options: Further arguments of timm's constructor.
        weights: The file of its weights, safetensors.
    """

    library: Literal["timm", "torchvision"]
    architecture: str
    options: Mapping[str, Any]
    weights: Path


@dataclass(frozen=True, slots=True)
class BackboneDescription:
    """What is known of a backbone before it is loaded.

    Attributes:
        input_side: Pixels of its square input.
        num_features: D; None where only loading shows it.
        num_parameters: None where it is not known.
        num_bytes: Size of the weights' file; None where it is not known.
        trained_on: What its training pictures were; None where that is not known.
        classes: Labels of its own head; None: it has none, or nothing names them.
        network: What it is built from; None where it cannot be fine-tuned.
    """

    facts: BackboneFacts
    input_side: int
    num_features: int | None
    num_parameters: int | None
    num_bytes: int | None
    trained_on: TrainedOn | None
    classes: tuple[str, ...] | None = None
    network: NetworkFile | None = None


@dataclass(frozen=True, slots=True)
class BackboneInput:
    """From pictures to a backbone's input; called by several preparation threads at once.

    Attributes:
        pixels: Picture (RGB) to (3, H, W), float32, as the weights want it.
        crop_view: The same of a random part of the picture, by a seed.
        payload: From pixels to what the engine's runner takes.
        features: From the runner's result to the features, (D,) float32.
    """

    pixels: Callable[[Image.Image], torch.Tensor]
    crop_view: Callable[[Image.Image, int], torch.Tensor]
    payload: Callable[[torch.Tensor], object]
    features: Callable[[Any], np.ndarray]


@dataclass(frozen=True, slots=True)
class LoadedBackbone:
    """A backbone that the engine serves.

    Attributes:
        model: Its name in the engine.
    """

    model: str
    description: BackboneDescription
    input: BackboneInput


class BackboneSource(Protocol):
    """Where a backbone that is loaded on demand comes from."""

    def describe(self) -> BackboneDescription:
        """Return what its files say; raises an exception with a `detail` where they cannot be used."""

    def load(self) -> tuple[Runner, BackboneInput]:
        """Load it; raises an exception with a `detail` where that is impossible."""


def parts_of(name: str, pointer: str) -> list[str]:
    """Return the names of the parts of a combined backbone.

    Raises:
        Invalid: `backbone_not_found`, at the pointer: there are too many, or one is named twice.
    """
    names = part_names(name)
    if len(names) > MAX_PARTS or len(set(names)) < len(names):
        detail = f"Combine at most {MAX_PARTS} different backbones."
        raise Invalid.field(pointer, detail, ErrorCode.BACKBONE_NOT_FOUND)
    return names


def combine_descriptions(name: str, parts: Sequence[BackboneDescription]) -> BackboneDescription:
    """Describe several backbones as one; `name` is their names, joined."""
    sizes = [part.num_features for part in parts]
    return BackboneDescription(
        facts=combined_facts(name, [part.facts for part in parts]),
        input_side=max(part.input_side for part in parts),
        num_features=None if None in sizes else sum(size or 0 for size in sizes),
        num_parameters=None,
        num_bytes=None,
        trained_on=parts[0].trained_on if len({part.trained_on for part in parts}) == 1 else None,
    )
