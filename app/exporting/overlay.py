"""A heat map over the picture that a network got, as PNG. Imports numpy and Pillow alone; any thread."""

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image

Floats = npt.NDArray[np.float32]

# Colours at heat 0, 1/3, 2/3 and 1, and how much of the picture the greatest heat covers. Darkest to lightest, so that
# the order is also seen without colours.
_COLOURS: Final = np.array([[48, 18, 59], [200, 40, 30], [250, 150, 30], [255, 255, 190]], np.float32)
_COVER: Final = 0.65


def overlay_png(pixels: Floats, heat: Floats, preprocessing: Mapping[str, Any]) -> bytes:
    """Lay the heat over the picture; equal arguments give equal bytes with the same version of Pillow.

    Args:
        pixels: The network's input.
        heat: 0 (the picture alone, paler) to 1.
        preprocessing: Its `mean` and `std` turn the input into a picture again.

    Shapes:
        pixels: (3, H, W), float32, normalised.
        heat: (H, W), float32.
    """
    mean, std = (np.array(preprocessing[key], np.float32).reshape(3, 1, 1) for key in ("mean", "std"))
    picture = ((pixels * std + mean).clip(0, 1) * 255).transpose(1, 2, 0)
    grey = (picture @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]  # ITU-R BT.601
    base = 0.5 * picture + 0.5 * grey  # pale, so that the heat's colours stand out
    places = np.linspace(0, 1, len(_COLOURS))
    colours = np.stack([np.interp(heat, places, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    cover = _COVER * heat[..., None]
    mixed = (base * (1 - cover) + colours * cover).round().clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(mixed).save(buffer, "PNG")
    return buffer.getvalue()
