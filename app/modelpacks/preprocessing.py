"""Preprocessing of images for classifiers and backbones: resize, centre crop, normalise; and augmented views.

Imports nothing of the application, and timm only for crop modes that torchvision lacks. The transforms run on any
thread.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode, functional

# Area of an augmented view as a part of the picture, and its aspect ratio.
# Source: torchvision `RandomResizedCrop`, whose default of 0.08 makes features of a fixed backbone worse.
VIEW_AREA: Final = (0.35, 1.0)
VIEW_RATIO: Final = (3 / 4, 4 / 3)
_DRAWS = 10


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The settings of resize, centre crop and normalisation.

    Attributes:
        resize: Pixels of the shorter side.
        crop: Pixels of the square cut out of the middle.
        mean: Per channel, of values 0 ... 1.
        std: Per channel, of values 0 ... 1.
        interpolation: `bilinear` or `bicubic`.
        library: Whose transform it is: `torchvision`, `timm`, or `transformers`.
        crop_pct: timm's setting, `crop` / `resize` before it was rounded; None for the other libraries.
        crop_mode: `center`; `squash` and `border` for some models of timm.
    """

    resize: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    library: str = "torchvision"
    crop_pct: float | None = None
    crop_mode: str = "center"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Preprocessing":
        """Read the `preprocessing` of a part's `config.json`, or what `to_json` returned.

        Raises:
            KeyError: A setting is missing.
            TypeError: A setting has another type.
            ValueError: A setting is no number, or the interpolation is unknown.
        """
        crop_pct = config.get("crop_pct")
        return cls(
            resize=int(config["resize"]),
            crop=int(config["crop"]),
            mean=tuple(float(value) for value in config["mean"]),
            std=tuple(float(value) for value in config["std"]),
            interpolation=InterpolationMode(config.get("interpolation", "bilinear")).value,
            library=str(config.get("library", "torchvision")),
            crop_pct=None if crop_pct is None else float(crop_pct),
            crop_mode=str(config.get("crop_mode", "center")),
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

    @classmethod
    def from_timm(cls, pretrained_cfg: Mapping[str, Any]) -> "Preprocessing":
        """Read the `pretrained_cfg` of one of timm's models.

        Raises:
            KeyError, TypeError: A setting is missing or has another type.
            ValueError: A setting is not supported: the input is not square, or the interpolation is unknown.

        Source:
            timm `resolve_data_config` and `transforms_imagenet_eval`.
        """
        _, height, width = pretrained_cfg["input_size"]
        if height != width:
            raise ValueError("The input is not square.")
        crop_pct = float(pretrained_cfg.get("crop_pct") or 0.875)
        return cls(
            resize=math.floor(height / crop_pct),
            crop=int(height),
            mean=tuple(float(value) for value in pretrained_cfg["mean"]),
            std=tuple(float(value) for value in pretrained_cfg["std"]),
            interpolation=InterpolationMode(pretrained_cfg.get("interpolation") or "bicubic").value,
            library="timm",
            crop_pct=crop_pct,
            crop_mode=str(pretrained_cfg.get("crop_mode") or "center"),
        )

    @classmethod
    def from_processor(cls, processor: Any) -> "Preprocessing":
        """Read a `CLIPImageProcessor`; `transform` differs from it in rounding, so the processor has to run itself."""
        return cls(
            resize=int(processor.size["shortest_edge"]),
            crop=int(processor.crop_size["height"]),
            mean=tuple(float(value) for value in processor.image_mean),
            std=tuple(float(value) for value in processor.image_std),
            interpolation={2: "bilinear", 3: "bicubic"}[int(processor.resample)],
            library="transformers",
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values; `from_config` reads them."""
        return {
            "library": self.library,
            "resize": self.resize,
            "crop": self.crop,
            "crop_mode": self.crop_mode,
            "crop_pct": self.crop_pct,
            "interpolation": self.interpolation,
            "mean": list(self.mean),
            "std": list(self.std),
        }

    def transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """Build the transform.

        Shapes:
            returns: image (RGB) to (3, crop, crop), float32.

        Source:
            torchvision `ImageClassification`, the transform of its weights; for `center` timm's is the same.
        """
        if self.crop_mode != "center":
            return self._timm_transform()
        transform: Callable[[Image.Image], torch.Tensor] = transforms.Compose(
            [
                transforms.Resize(self.resize, InterpolationMode(self.interpolation)),
                transforms.CenterCrop(self.crop),
                self.normalise,
            ]
        )
        return transform

    def normalise(self, image: Image.Image) -> torch.Tensor:
        """Turn an image (RGB) into (3, H, W), float32, without changing its size.

        Bitwise torchvision's `normalize(to_tensor(image))`, which is computed once for each of the 256 values.
        """
        table = _values(self.mean, self.std)
        channels = np.asarray(image).transpose(2, 0, 1)
        return torch.from_numpy(np.stack([row[channel] for row, channel in zip(table, channels, strict=True)]))

    def crop_view(self, image: Image.Image, seed: int) -> torch.Tensor:
        """Cut out a random part, resize it and mirror it or not; equal seeds give equal views.

        Shapes:
            returns: (3, crop, crop), float32.

        Source:
            torchvision `RandomResizedCrop` and `RandomHorizontalFlip`, without the global generator.
        """
        dice = random.Random(seed)  # noqa: S311 - augmentation, no secret
        top, left, height, width = _draw_box(dice, image.width, image.height)
        side = [self.crop, self.crop]
        part = functional.resized_crop(
            image, top, left, height, width, side, InterpolationMode(self.interpolation), antialias=True
        )
        return self.normalise(functional.hflip(part) if dice.random() < 0.5 else part)

    def _timm_transform(self) -> Callable[[Image.Image], torch.Tensor]:
        from timm.data import create_transform  # slow to import, and rarely needed

        transform: Callable[[Image.Image], torch.Tensor] = create_transform(
            input_size=(3, self.crop, self.crop),
            is_training=False,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
        )
        return transform


@lru_cache(maxsize=64)
def _values(mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Return what each value of a channel becomes. **Shapes**: returns (3, 256), float32."""
    values = torch.arange(256, dtype=torch.uint8).repeat(3, 1)[:, None]
    floats = functional.convert_image_dtype(values, torch.float32)
    table: np.ndarray = functional.normalize(floats, list(mean), list(std))[:, 0].numpy()
    return table


def _draw_box(dice: random.Random, width: int, height: int) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a part; all of the picture if ten draws do not fit into it."""
    for _ in range(_DRAWS):
        area = width * height * dice.uniform(*VIEW_AREA)
        ratio = math.exp(dice.uniform(math.log(VIEW_RATIO[0]), math.log(VIEW_RATIO[1])))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return dice.randint(0, height - box_height), dice.randint(0, width - box_width), box_height, box_width
    return 0, 0, height, width
