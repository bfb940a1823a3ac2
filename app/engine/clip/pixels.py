"""Images to CLIP's input pixels: bitwise the result of transformers' image processor, in half of its time.

Handles no model, no texts and no files. The loader thread calls `pixels_by`; the returned function is called from any
thread.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode, functional

logger = logging.getLogger(__name__)

_INTERPOLATIONS = {2: InterpolationMode.BILINEAR, 3: InterpolationMode.BICUBIC}  # by Pillow's number

# (W, H). By the last two, odd margins of both kinds are cropped: 3 and 1 modulo 4.
_TRIAL_SIZES = ((640, 480), (47, 61), (301, 224), (224, 224), (333, 1000), (227, 224), (224, 229))

Pixels = Callable[[Image.Image], torch.Tensor]


def pixels_by(processor: Any) -> Pixels:
    """Return a function from an image (RGB) to the pixels of a `CLIPImageProcessor`.

    The fast implementation is used only where its results are bitwise those of the processor on trial images, which
    protects against unknown settings and versions.

    Shapes:
        returns: to (3, H, W), float32, contiguous.

    Source:
        transformers `CLIPImageProcessor`.
    """

    def original(picture: Image.Image) -> torch.Tensor:
        pixels: torch.Tensor = processor(images=picture, return_tensors="pt").pixel_values[0]
        return pixels

    try:
        quick = _QuickPixels(processor)
        is_same = all(torch.equal(quick(picture), original(picture)) for picture in map(_draw, _TRIAL_SIZES))
    except (AttributeError, KeyError, TypeError, RuntimeError, ValueError):
        logger.debug("The image processor cannot be optimized.", exc_info=True)
        return original
    return quick if is_same else original


class _QuickPixels:
    """Resize, centre crop and normalise, for a processor that does exactly these three."""

    def __init__(self, processor: Any) -> None:
        self._size = [processor.size["shortest_edge"]]
        self._interpolation = _INTERPOLATIONS[int(processor.resample)]
        self._crop = [processor.crop_size["height"], processor.crop_size["width"]]
        # The factor from bytes to 0 ... 1 is folded into mean and deviation, as in the original.
        scale = 1.0 / processor.rescale_factor
        self._mean, self._std = (
            (torch.tensor(values) * scale)[:, None, None] for values in (processor.image_mean, processor.image_std)
        )

    def __call__(self, picture: Image.Image) -> torch.Tensor:
        # Resized as uint8 in channels_last order, for which torch has a fast kernel.
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
        resized = functional.resize(pixels, self._size, self._interpolation, antialias=True)
        height, width = resized.shape[-2:]
        # The processor rounds an odd margin down, torchvision's `center_crop` to an even number.
        top, left = int((height - self._crop[0]) / 2), int((width - self._crop[1]) / 2)
        cropped: torch.Tensor = functional.crop(resized, top, left, *self._crop)[0].contiguous()
        return cropped.to(torch.float32).sub_(self._mean).div_(self._std)


def _draw(size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
