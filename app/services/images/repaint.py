"""Colours and textures of other hands: flat colours, outlines, grey, blurred or sharpened, duller or brighter.

Works on pixels; imports no models. Equal generators give equal pictures. Any thread may call it.
"""

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps


def repaint(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Change colours and texture at random; what a picture shows, and where, stays.

    The shares were set by reasoning, before any test: most pictures of other hands are more saturated than the demo
    pack's, many have flat colours, few are grey or line drawings.

    Args:
        image: RGB.
        rng: Gives every random choice.
    """
    if rng.random() < 0.5:
        image = _turn_hue(image, int(rng.normal(0, 10)))
    image = ImageEnhance.Color(image).enhance(float(rng.uniform(0.6, 2.2)))
    image = ImageEnhance.Contrast(image).enhance(float(rng.uniform(0.7, 1.6)))
    image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.8, 1.2)))
    return _texture(_ink(_flatten(image, rng), rng), rng)


def _turn_hue(image: Image.Image, steps: int) -> Image.Image:
    """Turn the hue by steps of 1/256 of the circle."""
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(level + steps) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def _flatten(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Reduce a third of the pictures to 5 to 13 flat colours, and posterise a few."""
    choice = rng.random()
    if choice < 0.35:
        even = image.filter(ImageFilter.MedianFilter(int(rng.choice([3, 5]))))
        num_colours = int(rng.integers(5, 14))
        flat = even.quantize(num_colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        return flat.convert("RGB")
    return ImageOps.posterize(image, int(rng.integers(2, 4))) if choice < 0.5 else image


def _ink(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Make an eighth of the pictures grey, and one in twelve a line drawing."""
    choice = rng.random()
    if choice < 0.12:
        return ImageOps.grayscale(image).convert("RGB")
    if choice < 0.2:
        lines = ImageOps.invert(ImageOps.grayscale(image).filter(ImageFilter.FIND_EDGES))
        return ImageOps.autocontrast(lines).convert("RGB")
    return image


def _texture(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Blur some pictures and sharpen others."""
    choice = rng.random()
    if choice < 0.15:
        return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.2))))
    if choice < 0.45:
        return image.filter(ImageFilter.UnsharpMask(2, int(rng.integers(80, 250)), 2))
    return image
