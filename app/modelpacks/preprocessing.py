"""Preprocessing of images for torchvision's classifiers: resize, centre crop, normalise.

Imports nothing of the application. The transforms run on any thread.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The settings of resize, centre crop and normalisation.

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
        """Read the `preprocessing` of a part's `config.json`.

        Raises:
            KeyError: A setting is missing.
            TypeError: A setting has another type.
            ValueError: A setting is no number, or the interpolation is unknown.
        """
        return cls(
            resize=int(config["resize"]),
            crop=int(config["crop"]),
            mean=tuple(float(value) for value in config["mean"]),
            std=tuple(float(value) for value in config["std"]),
            interpolation=InterpolationMode(config.get("interpolation", "bilinear")).value,
        )

    @classmethod
    def from_weights(cls, weights: Any) -> "Preprocessing":
        """Copy the settings with which torchvision evaluated its weights (such as `ResNet50_Weights.IMAGENET1K_V2`)."""
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
            returns: image (RGB) to (3, crop, crop), float32.

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
