"""How a picture becomes the tensor that a torchvision classifier was trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Resize, centre crop, normalise.

    Attributes:
        resize: Pixels of the shorter side.
        crop: Pixels of the square cut out of the middle.
        mean: Per channel, of values 0 ... 1.
        std: Per channel, of values 0 ... 1.
        interpolation: `bilinear` or `bicubic`.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """Read the `preprocessing` of a part's `config.json`."""
        return cls(
            resize=int(config["resize"]),
            crop=int(config["crop"]),
            mean=tuple(float(value) for value in config["mean"]),
            std=tuple(float(value) for value in config["std"]),
            interpolation=InterpolationMode(config.get("interpolation", "bilinear")).value,
        )

    @classmethod
    def from_weights(cls, weights: Any) -> "Preprocessing":
        """Take over what torchvision's weights (`ResNet50_Weights.IMAGENET1K_V2`) were evaluated with."""
        transform = weights.transforms()
        return cls(
            resize=transform.resize_size[0],
            crop=transform.crop_size[0],
            mean=tuple(transform.mean),
            std=tuple(transform.std),
            interpolation=transform.interpolation.value,
        )

    def transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """Build the transform.

        Shapes:
            returns: picture (RGB) to (3, crop, crop), float32.

        Source:
            torchvision `ImageClassification`, the transform of its weights.
        """
        transform: Callable[[Image.Image], torch.Tensor] = transforms.Compose(
            [
                transforms.Resize(self.resize, InterpolationMode(self.interpolation)),
                transforms.CenterCrop(self.crop),
                transforms.PILToTensor(),
                transforms.ConvertImageDtype(torch.float32),
                transforms.Normalize(self.mean, self.std),
            ]
        )
        return transform
