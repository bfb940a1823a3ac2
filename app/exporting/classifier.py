"""What an export is made from: backbones, a linear head, and facts in plain values. Imports no library of networks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import nn

# `combined`: several backbones side by side, each with a library of its own.
Library = Literal["timm", "torchvision", "transformers", "combined"]


@dataclass(frozen=True, slots=True)
class Network:
    """How the backbone's architecture is built again, without its weights.

    Attributes:
        library: Where the architecture is from.
        name: timm's or torchvision's name; for `transformers` always `CLIPVisionModelWithProjection`.
        options: For timm the arguments of `create_model` besides the number of classes (`global_pool`, `img_size`); for
            `transformers` the members of a `CLIPVisionConfig`; empty for torchvision.
    """

    library: Library
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the backbone's weights are from, and under which terms they may be passed on.

    Attributes:
        source: For people: who made the weights, and on which pictures.
        base_model: Name of the weights on Hugging Face's hub; None where they are not there.
        licence: SPDX identifier; None: not stated by the source.
        notices: Copyright lines that the licence wants kept.
    """

    source: str
    base_model: str | None = None
    licence: str | None = None
    notices: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the backbones of a model.

    Attributes:
        name: What files call it, without dots; empty for a model's only backbone.
        network: How it is built again.
        preprocessing: As in `ModelFacts`.
        origin: Where its weights are from.
    """

    name: str
    network: Network
    preprocessing: Mapping[str, Any]
    origin: Origin

    @property
    def prefix(self) -> str:
        """Return what comes before the library's names of its tensors in a file."""
        return f"backbones.{self.name}." if self.name else "backbone."

    @property
    def input(self) -> str:
        """Return the name of its input in a graph."""
        return f"pixels.{self.name}" if self.name else "pixels"

    @property
    def side(self) -> int:
        """Return the side of the square input in pixels."""
        return int(self.preprocessing["crop"])


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a classifier without loading it.

    Attributes:
        name: The model's name.
        preprocessing: JSON values: `library`, `resize` (pixels of the shorter side), `crop` (pixels), `crop_mode`,
            `crop_pct`, `interpolation`, `mean` and `std` (per channel, of values 0 ... 1). A card needs none of them.
            Of several backbones: these settings by the part's name.
        classes: K names in the order of the head's rows; any text.
        num_features: D; of several backbones, of all together.
        normalise: Whether the features are divided by their L2 norm before the head. True also where the node did that
            before the head was trained, as it does with CLIP's embeddings.
        lineage: JSON values: what the model was trained on and how.
        metrics: JSON values as `GET /models/{id}` returns them; empty: the card has no figures.
        parts: Of a model on several backbones: at least two, in the order of the features, of which each part's are
            divided by their L2 norm. Empty: the model has one backbone.
    """

    name: str
    network: Network
    preprocessing: Mapping[str, Any]
    classes: tuple[str, ...]
    num_features: int
    normalise: bool
    origin: Origin
    lineage: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    def __post_init__(self) -> None:
        """Check what files and graphs depend on.

        Raises:
            ValueError: There is no class, a name cannot be written as UTF-8, the library or input is unknown, or the
                parts have equal names or dots in them.
        """
        if not self.classes or self.network.library not in get_args(Library):
            raise ValueError("A classifier has at least one class, and a network of a known library.")
        if any(int(part.preprocessing.get("crop", 1)) < 1 for part in self.backbones):
            raise ValueError("The side of the input is at least one pixel.")
        names = {part.name for part in self.parts}
        if len(names) < len(self.parts) or any(not name or "." in name for name in names):
            raise ValueError("Each of several backbones has a name of its own, without dots.")
        for text in (self.name, *self.classes):
            text.encode()  # a lone surrogate fits in no file; UnicodeEncodeError is a ValueError

    @property
    def backbones(self) -> tuple[Part, ...]:
        """Return the parts; of a model on one backbone, that one without a name."""
        return self.parts or (Part("", self.network, self.preprocessing, self.origin),)

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain values; `from_json` reads them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "ModelFacts":
        """Read what `to_json` returned, after it was written as JSON and read again."""
        return cls(
            **{
                **values,
                "network": Network(**values["network"]),
                "origin": Origin(**values["origin"]),
                "classes": tuple(values["classes"]),
                "parts": tuple(
                    Part(**{**part, "network": Network(**part["network"]), "origin": Origin(**part["origin"])})
                    for part in values.get("parts", ())
                ),
            }
        )


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded classifier.

    Attributes:
        backbone: (N, 3, H, W) float32 normalised pixels to (N, D) float32, or to an object whose `image_embeds` are
            that; in eval mode. Of several: `SideBySide`.
        weight: (K, D), float32.
        bias: (K,), float32.
    """

    facts: ModelFacts
    backbone: nn.Module
    weight: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check that the parts fit.

        Raises:
            ValueError: The head has another shape, or the backbone is in training mode.
        """
        shape = (len(self.facts.classes), self.facts.num_features)
        if self.weight.shape != shape or self.bias.shape != shape[:1]:
            raise ValueError("The shape of the weight must be (K, D) and that of the bias (K,).")
        if self.backbone.training:
            raise ValueError("The backbone must be in eval mode: in training mode a forward changes its buffers.")
