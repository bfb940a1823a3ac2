"""The pictures that an image is made from: read, checked, brought to the size that is drawn.

Imports no engine and no records. Runs on the event loop of the API process; pictures are decoded on preparation
threads. `SourcePictures` also crosses to the worker and back, as PNG files.
"""

import asyncio
import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from app.access.caller import Caller
from app.error_codes import ErrorCode
from app.errors import FieldError, FileLost, Invalid, NotFound, PayloadTooLarge, UnsupportedImage
from app.image_spec import ImageSpec, PictureRef
from app.schemas.source_images import ImageToImageFields, SourceImage
from app.services.images.base64_text import decode_base64
from app.services.images.service import ImageService
from app.services.inference.diffusion.rendering import SourcePictures
from app.services.inference.preprocessing import PictureRequest
from app.services.inference.service import Inference
from app.services.limits import Limits
from app.storage.frames import is_animated
from app.storage.image_formats import DecodeImage, decode_image, decode_opacity, pixels_sha256
from app.storage.picture_size import is_large, size_of

__all__ = ["SourceService", "as_base64", "from_files", "size_of", "to_files"]

# Encoded on the event loop: 0.1 ms.
_MAX_INLINE_BYTES = 65_536

INIT_IMAGE, MASK = "init_image", "mask"


@dataclass(frozen=True, slots=True)
class _File:
    """A picture as it came, the stored image that it is, and the hash that it should have."""

    data: bytes
    field: str
    image_id: str | None
    sha256: str | None


class SourceService:
    """Reads the pictures of a request."""

    def __init__(
        self, inference: Inference, images: ImageService, limits: Limits, *, decode: DecodeImage = decode_image
    ) -> None:
        """Wire the service; `decode` reads untrusted image files."""
        self._inference = inference
        self._images = images
        self._limits = limits
        self._decode = decode

    async def load(
        self, request: ImageToImageFields, spec: ImageSpec, caller: Caller
    ) -> tuple[ImageSpec, SourcePictures] | None:
        """Return the pictures of a request at the size of its images, and the spec that names them.

        Args:
            request: As it came.
            spec: The request's first image, without its pictures.
            caller: Who asks: stored images must be ones that he sees.

        Returns:
            None: The request has no initial image.

        Raises:
            Invalid, UnsupportedImage, PayloadTooLarge, FileLost: A picture cannot be used; the fault names its field.
            QueueFull: Too many pictures are being decoded.
        """
        if request.init_image is None:
            return None
        files = [await self._read(request.init_image, INIT_IMAGE, caller)]
        if request.mask is not None:
            files.append(await self._read(request.mask, MASK, caller))
        owner = PictureRequest(is_large=any(is_large(file.data) for file in files))
        prepare = partial(self._prepare, files, request, spec)
        return await self._inference.prepare_pictures(prepare, owner=owner, caller=caller.id)

    async def transparent_part(self, data: bytes, pointer: str, caller: Caller) -> bytes | None:
        """Return a mask, as a PNG file, that repaints the transparent pixels of an image; None: it has none.

        Args:
            data: The image's file.
            pointer: Where it was in the request.
            caller: Whose request it is.

        Raises:
            Invalid, UnsupportedImage, PayloadTooLarge: The image cannot be used.
            QueueFull: Too many pictures are being decoded.
        """
        owner = PictureRequest(is_large=is_large(data))
        try:
            return await self._inference.prepare_pictures(
                partial(_transparent_part, data, self._limits), owner=owner, caller=caller.id
            )
        except (Invalid, PayloadTooLarge, UnsupportedImage) as error:
            error.errors = (FieldError(pointer, error.detail, error.code),)
            raise

    async def _read(self, source: SourceImage, field: str, caller: Caller) -> _File:
        if source.image_id is None:
            return _File(
                await decode_base64(source.image_b64 or "", f"#/{field}/image_b64"), field, None, source.sha256
            )
        pointer = f"#/{field}/image_id"
        try:
            data = await asyncio.to_thread(self._images.content, source.image_id, caller)
        except NotFound:
            raise Invalid.field(pointer, "There is no image with this id.", ErrorCode.IMAGE_NOT_FOUND) from None
        except FileLost as error:
            error.errors = (FieldError(pointer, error.detail, error.code),)
            raise
        return _File(data, field, source.image_id, source.sha256)

    def _prepare(
        self, files: list[_File], request: ImageToImageFields, spec: ImageSpec
    ) -> tuple[ImageSpec, SourcePictures]:
        """Decode the pictures and bring them to the size of the image; on a preparation thread."""
        image, *masks = [self._decoded(file) for file in files]
        if masks and masks[0].size != image.size:
            detail = f"The mask must have the size of init_image, which is {image.width} x {image.height} pixels."
            raise Invalid.field(f"#/{MASK}", detail, ErrorCode.MASK_SIZE_DIFFERS)
        size = spec.width, spec.height
        resized = fit(image, size)
        spec = replace(spec, init_image=_ref(resized, files[0]))
        if not masks:
            return spec, SourcePictures(np.asarray(resized))
        mask = _mask(masks[0], size, blur=request.mask_blur, inverts=request.mask_invert)
        spec = replace(spec, mask=_ref(mask, files[1]))
        return spec, SourcePictures(np.asarray(resized), np.asarray(mask))

    def _decoded(self, file: _File) -> Image.Image:
        return decode_source(file.data, f"#/{file.field}", self._limits, self._decode)


def decode_source(data: bytes, pointer: str, limits: Limits, decode: DecodeImage) -> Image.Image:
    """Return a picture of one frame as RGB in sRGB, white where it was transparent.

    Args:
        data: The image's file.
        pointer: Where it was in the request.
        limits: The node's bounds.
        decode: Reads untrusted image files.

    Raises:
        Invalid, UnsupportedImage, PayloadTooLarge: It cannot be used; the fault names the pointer.
    """
    try:
        if is_animated(data):
            raise Invalid("The image has several frames. Send one of them.", code=ErrorCode.ANIMATED_IMAGE)
        return decode(data, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
    except (Invalid, PayloadTooLarge, UnsupportedImage) as error:
        error.errors = (FieldError(pointer, error.detail, error.code),)
        raise


def fit(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return a picture resized to (width, height), in whatever proportion."""
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS)


def _ref(picture: Image.Image, file: _File) -> PictureRef:
    """Return the reference to a picture as it is used.

    Raises:
        Invalid: It has not the hash that the request names.
    """
    found = pixels_sha256(picture)
    if file.sha256 not in (None, found):
        detail = "The picture has other pixels, as it is used here. Leave sha256 out to take it all the same."
        raise Invalid.field(f"#/{file.field}/sha256", detail, ErrorCode.IMAGE_DIFFERS)
    return PictureRef(found, file.image_id)


def _mask(picture: Image.Image, size: tuple[int, int], *, blur: float, inverts: bool) -> Image.Image:
    """Return a mask of greys, white where the image is repainted.

    Source:
        diffusers `VaeImageProcessor`: `resize`, `convert_to_grayscale` and `blur`.
    """
    mask = fit(picture, size).convert("L")
    if inverts:
        mask = ImageOps.invert(mask)
    return mask.filter(ImageFilter.GaussianBlur(blur)) if blur else mask


def _transparent_part(data: bytes, limits: Limits) -> bytes | None:
    opacity = decode_opacity(data, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
    if opacity.getextrema()[0] == 255:
        return None
    return png_file(255 - np.asarray(opacity))


async def as_base64(data: bytes) -> str:
    """Return a file in base64, of a large one on a thread."""
    if len(data) <= _MAX_INLINE_BYTES:
        return base64.b64encode(data).decode()
    return (await asyncio.to_thread(base64.b64encode, data)).decode()


def to_files(pictures: SourcePictures) -> dict[str, bytes]:
    """Return the pictures as PNG files by the names of their fields."""
    found = {INIT_IMAGE: pictures.image, MASK: pictures.mask}
    return {name: png_file(pixels) for name, pixels in found.items() if pixels is not None}


def from_files(files: Mapping[str, bytes]) -> SourcePictures | None:
    """Return the pictures that `to_files` wrote; None where there are none."""
    if INIT_IMAGE not in files:
        return None
    return SourcePictures(_pixels(files[INIT_IMAGE]), _pixels(files[MASK]) if MASK in files else None)


def png_file(pixels: np.ndarray) -> bytes:
    """Return pixels as a PNG file: (H, W, 3) or (H, W), uint8."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        return np.asarray(image)
