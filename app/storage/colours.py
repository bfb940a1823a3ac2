"""Conversion of decoded pixels to upright sRGB on white: colour profiles, 16 bits, transparency, orientation.

An image without a profile is taken as sRGB: a PNG's gAMA, cHRM and cICP chunks are ignored, as by most readers. Parses
no file formats; `containers` provides the parts. Pure functions; any thread, but never the event loop.
"""

import io
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from app.storage.containers import ColourKey, Parts

Mask = npt.NDArray[np.bool_]
Samples = npt.NDArray[np.uint16]

_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION_TAG, _LONG, _MAX_EXIF_ENTRIES = 0x0112, 4, 1_000
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:=[\"']|>)([1-8])")

# The Pillow mode that a profile of each colour space takes as input.
_PROFILE_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
# A profile that changes no colour by more than this, in 8-bit levels, is a variant of sRGB; the pixels stay unchanged.
_SAME_COLOUR = 2
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))

_ROWS_AT_ONCE = 128
# Pillow's raw modes of 16-bit colour, which keep the higher bytes, and those that keep the lower bytes.
_LOWER_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def to_srgb(image: Image.Image, parts: Parts) -> Image.Image:
    """Decode an image and convert it to sRGB; transparency is composited on white.

    Args:
        image: Opened from `parts.file`, not yet decoded.
        parts: The parts of the file.

    Returns:
        An image of mode RGB.
    """
    decoded, clear = _decoded(image, parts)
    pixels = _profiled(decoded, parts.profile) or decoded.convert("RGB")
    if decoded.has_transparency_data:
        _lay_on_white(pixels, decoded)
    if clear is not None:
        pixels.paste("white", mask=Image.fromarray(clear))
    return pixels


def to_opacity(image: Image.Image, parts: Parts) -> Image.Image:
    """Decode how opaque each pixel is; arguments as in `to_srgb`.

    Returns:
        An image of mode L.
    """
    decoded, clear = _decoded(image, parts)
    if not decoded.has_transparency_data:
        opacity = Image.new("L", decoded.size, 255)
    else:
        opacity = decoded.convert("RGBA").getchannel("A")
    if clear is not None:
        opacity.paste(0, mask=Image.fromarray(clear))
    return opacity


def _lay_on_white(pixels: Image.Image, decoded: Image.Image) -> None:
    """Composite an RGB image by the transparency of another one, some rows at a time: Pillow holds Python's lock."""
    for top in range(0, pixels.height, _ROWS_AT_ONCE):
        box = (0, top, pixels.width, min(top + _ROWS_AT_ONCE, pixels.height))
        rows = pixels.crop(box)
        rows.putalpha(decoded.crop(box).convert("RGBA").getchannel("A"))
        pixels.paste(Image.alpha_composite(Image.new("RGBA", rows.size, "white"), rows).convert("RGB"), box)


def upright(pixels: Image.Image, parts: Parts) -> Image.Image:
    """Rotate and mirror an image by its recorded orientation; Exif takes precedence over XMP."""
    transposition = _TRANSPOSITIONS.get(_orientation(parts))
    return pixels if transposition is None else pixels.transpose(transposition)


def _decoded(image: Image.Image, parts: Parts) -> tuple[Image.Image, Mask | None]:
    """Return the image in 8 bits a sample, and the (H, W) mask of its transparent pixels if it has a colour key."""
    rawmode = _rawmode(image)
    if rawmode in _LOWER_BYTES:
        higher, lower = (_bytes_of_samples(parts.file, mode) for mode in (rawmode, _LOWER_BYTES[rawmode]))
        return _scaled(lambda rows: _joined(higher[rows], lower[rows]), higher.shape, parts.key)
    image.load()
    if rawmode == "LA;16B":  # grey, as a grey profile requires
        return image.convert("LA"), None
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to 8 bits instead of scaling
        samples = np.asarray(image)
        return _scaled(lambda rows: samples[rows].astype(np.uint16), samples.shape, parts.key)
    return image, None if parts.key is None else _keyed(image, parts.key)


def _scaled(
    samples_of: Callable[[slice], Samples], shape: tuple[int, ...], key: ColourKey | None
) -> tuple[Image.Image, Mask | None]:
    """Round 16-bit samples to 8 bits, some rows at a time: all at once would take 1 GB for a large image."""
    scaled = np.empty(shape, np.uint8)
    clear = None if key is None else np.empty(shape[:2], np.bool_)
    for start in range(0, shape[0], _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        samples = samples_of(rows)
        scaled[rows] = (samples.astype(np.uint32) * 255 + 32_767) // 65_535
        if clear is not None and key is not None:
            clear[rows] = _equal(samples, key.samples)
    return Image.fromarray(scaled), clear


def _keyed(image: Image.Image, key: ColourKey) -> Mask:
    """Return which pixels have the key's samples; Pillow scales samples of fewer than 8 bits to 0 .. 255."""
    largest = 2**key.depth - 1
    samples = np.asarray(image.convert("L") if image.mode == "1" else image)
    return _equal(samples, [(sample & largest) * (255 // largest) for sample in key.samples])


def _equal(samples: npt.NDArray[Any], wanted: Sequence[int]) -> Mask:
    """Compare (H, W) or (H, W, 3) samples with those of one colour."""
    same: Mask = samples == np.array(wanted, samples.dtype)
    return np.logical_and.reduce(same, axis=-1) if samples.ndim == 3 else same


def _joined(higher: npt.NDArray[np.uint8], lower: npt.NDArray[np.uint8]) -> Samples:
    samples: Samples = higher.astype(np.uint16)
    samples <<= 8
    samples |= lower
    return samples


def _rawmode(image: Image.Image) -> str:
    tiles = getattr(image, "tile", [])
    args = tiles[0][3] if tiles else None
    return args if isinstance(args, str) else ""


def _bytes_of_samples(file: bytes, rawmode: str) -> npt.NDArray[np.uint8]:
    """Decode 16-bit colour; Pillow keeps one byte of each sample, the higher or the lower one by the raw mode."""
    with Image.open(io.BytesIO(file), formats=["PNG"]) as image:
        image.tile = [image.tile[0]._replace(args=rawmode)]
        return np.asarray(image)


def _profiled(image: Image.Image, profile: bytes) -> Image.Image | None:
    """Return the image in sRGB by its own profile; None if the profile changes nothing or cannot be used."""
    if not profile:
        return None
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _PROFILE_MODES.get(source.profile.xcolor_space.strip())
        is_ink = image.mode == "CMYK"
        if mode is None or (mode == "CMYK") != is_ink or (mode == "L" and image.mode not in ("1", "L", "LA")):
            return None
        transform = ImageCms.buildTransform(source, _SRGB, mode, "RGB", ImageCms.Intent.PERCEPTUAL)
        if not is_ink and _changes_nothing(transform, mode):
            return None
        return ImageCms.applyTransform(image if image.mode == mode else image.convert(mode), transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # a broken profile does not make the pixels unusable


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform leaves a grid of colours, or all greys, within `_SAME_COLOUR`."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(grid if mode == "RGB" else np.arange(256, dtype=np.uint8)[None])
    before = np.asarray(probe.convert("RGB"), np.int16)
    after = np.asarray(ImageCms.applyTransform(probe, transform), np.int16)
    return int(np.abs(after - before).max()) <= _SAME_COLOUR


def _orientation(parts: Parts) -> int:
    """Return the orientation 1 .. 8; any other number means none."""
    found = _exif_orientation(parts.exif)
    if found is None and (match := _XMP_ORIENTATION.search(parts.xmp)):
        return int(match[1])
    return found or 0


def _exif_orientation(tiff: bytes) -> int | None:
    """Return the orientation in the first directory; parsing all of a crafted Exif could take minutes."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for place in range(start + 2, start + 2 + 12 * min(count, _MAX_EXIF_ENTRIES), 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, place)
            if tag == _ORIENTATION_TAG:
                return int(struct.unpack_from(f"{order}{'I' if kind == _LONG else 'H'}", tiff, place + 8)[0])
    except struct.error:  # broken Exif does not make the pixels unusable
        pass
    return None
