"""Image bytes to pixels and back: PNG, JPEG and WebP only. Imports no paths and no records.

Decoding takes untrusted files: the format is fixed and everything but the pixels removed before Pillow reads them, the
size is checked before pixels are decoded, and every exception of Pillow becomes an error of this application. Encoding
is a pure function: equal pixels and settings give equal bytes, and the bytes carry the settings.
Any thread may call either; both use a core for milliseconds to a second, so they are not called on the event loop.
"""

import hashlib
import io
import json
import re
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from xml.sax.saxutils import escape, unescape

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, PngImagePlugin

from app.error_codes import ErrorCode
from app.errors import AppError, Invalid, PayloadTooLarge, UnsupportedImage
from app.image_spec import SAMPLER_NAMES, OutputFormat
from app.storage.colours import to_opacity, to_srgb, upright
from app.storage.containers import Container, Parts, TooManyParts, take_apart

MEDIA_TYPES: dict[OutputFormat, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

# Pillow warns about unusual metadata and large sizes. Clients have no use for the text, and a filter set for each call
# would not be thread-safe before Python 3.14.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Each scan of a JPEG is a pass over all pixels (20 ms at 40 megapixels), and 61 bytes buy one.
_MAX_SCANNED_PIXELS = 1_000_000_000

# A model's preprocessing scales the shorter side to 224 pixels and more, and the other one in proportion: one row of a
# million pixels, a file of a kilobyte, would become 150 GB. At this limit it is 15 MB.
_MAX_PROPORTION = 100

_XMP_TEMPLATE = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about=""'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:foxhound="urn:foxhound:">'
    "<Iptc4xmpExt:DigitalSourceType>http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    "</Iptc4xmpExt:DigitalSourceType>{}</rdf:Description></rdf:RDF></x:xmpmeta>"
    '<?xpacket end="r"?>'
)
_XMP_SETTINGS = re.compile(r"<foxhound:settings>(.*?)</foxhound:settings>", re.DOTALL)


class DecodeImage(Protocol):
    """The signature of `decode_image`, for callers that take a replacement."""

    def __call__(self, data: bytes, *, max_bytes: int, max_pixels: int) -> Image.Image: ...  # noqa: D102


def decode_image(data: bytes, *, max_bytes: int, max_pixels: int) -> Image.Image:
    """Decode an untrusted PNG, JPEG or WebP file to plain sRGB pixels.

    The first frame is taken, an embedded colour profile applied, transparency laid on white, the orientation applied,
    and everything else that the file holds beside its pixels ignored.

    Args:
        data: The whole file.
        max_bytes: Largest file taken, in bytes.
        max_pixels: Most pixels taken (width x height), checked before they are decoded.

    Returns:
        An image of mode RGB without any metadata.

    Raises:
        PayloadTooLarge: `image_too_large` or `too_many_pixels`.
        UnsupportedImage: The bytes are no PNG, JPEG or WebP file.
        Invalid: `corrupt_image`: it begins as one of them but cannot be decoded; `too_many_chunks`: it is cut into more
            pieces than any sound file; or `too_elongated`: one side is more than 100 times the other.
    """
    return _decode(data, to_srgb, max_bytes=max_bytes, max_pixels=max_pixels)


def decode_opacity(data: bytes, *, max_bytes: int, max_pixels: int) -> Image.Image:
    """Decode how opaque each pixel of an untrusted file is; arguments and errors as in `decode_image`.

    Returns:
        An image of mode L: 255 where the picture is opaque, 0 where it is transparent.
    """
    return _decode(data, to_opacity, max_bytes=max_bytes, max_pixels=max_pixels)


def _decode(
    data: bytes, convert: Callable[[Image.Image, Parts], Image.Image], *, max_bytes: int, max_pixels: int
) -> Image.Image:
    if len(data) > max_bytes:
        raise PayloadTooLarge(f"The image file is larger than {max_bytes} bytes.", code=ErrorCode.IMAGE_TOO_LARGE)
    container = _sniff(data)
    try:
        parts = take_apart(data, container)
        with Image.open(io.BytesIO(parts.file), formats=[container]) as image:
            if image.width * image.height > max_pixels:
                raise _too_many_pixels(max_pixels)
            if parts.num_scans * image.width * image.height > _MAX_SCANNED_PIXELS:
                raise TooManyParts
            if max(image.size) > _MAX_PROPORTION * min(image.size):
                raise _too_elongated()
            pixels = upright(convert(image, parts), parts)
    except AppError:
        raise
    except TooManyParts:
        detail = "The image file consists of more pieces than any sound one. Save it again."
        raise Invalid(detail, code=ErrorCode.TOO_MANY_CHUNKS) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(max_pixels) from None
    except Exception:  # decoders raise nearly any exception on damaged files, with addresses and paths in its text
        raise _corrupt() from None
    pixels.info.clear()
    return pixels


def encode_image(pixels: npt.NDArray[np.uint8], image_format: OutputFormat, settings: Mapping[str, Any]) -> bytes:
    """Encode pixels to a file that carries how they were made.

    PNG has the `parameters` and `foxhound` text chunks, JPEG and WebP the EXIF UserComment and a `foxhound` entry
    in XMP; all have XMP's "trained algorithmic media".

    Args:
        pixels: The image.
        image_format: PNG is lossless; JPEG and WebP are written at quality 95.
        settings: JSON values that describe this image alone; no ids, times or hosts. The text convention shows
            prompt, negative_prompt, num_inference_steps, scheduler, guidance_scale, seed, pack (as `Model`), strength
            (as `Denoising strength`) and mask_blur.

    Shapes:
        pixels: (H, W, 3), uint8.

    Returns:
        The whole file; equal arguments give equal bytes.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError("pixels must be (H, W, 3) uint8")
    image = Image.fromarray(np.ascontiguousarray(pixels))
    parameters = _parameters_text(settings, image.width, image.height)
    # ASCII only, so that no prompt can hold a sign that XML forbids.
    settings_json = json.dumps(dict(settings), sort_keys=True, separators=(",", ":"), allow_nan=False)
    buffer = io.BytesIO()
    if image_format == "png":
        # Run lengths: faster and smaller than levels 1 and 3 on every picture measured; less than half of level 6's
        # time for at most 6 % more bytes (bench/encoding, docs/decisions/0018; Pillow 13.0 with zlib-ng).
        image.save(
            buffer, "png", compress_level=1, compress_type=zlib.Z_RLE, pnginfo=_png_texts(parameters, settings_json)
        )
    else:
        xmp = _xmp(f"<foxhound:settings>{escape(settings_json)}</foxhound:settings>")
        image.save(buffer, image_format, quality=95, exif=_exif(parameters), xmp=xmp)
    return buffer.getvalue()


def encode_upload(image: Image.Image, *, uploaded: bytes, max_bytes: int) -> tuple[bytes, OutputFormat]:
    """Encode an uploaded picture again, with nothing but its pixels.

    PNG keeps every pixel. What came as JPEG has lost its exact pixels already and would grow several times as PNG,
    so it becomes JPEG again, at quality 95 without chroma subsampling; so does what would be too large as PNG.

    Args:
        image: As `decode_image` gave it.
        uploaded: The file that it was decoded from.
        max_bytes: Largest file that may be written: what is stored must be readable again under the same limit.

    Returns:
        The whole file and its format.

    Raises:
        PayloadTooLarge: `image_too_large`: neither format fits.
    """
    if _sniff(uploaded) != "JPEG" and len(data := _saved(image, "png", compress_level=6)) <= max_bytes:
        return data, "png"
    if len(data := _saved(image, "jpeg", quality=95, subsampling=0)) > max_bytes:
        raise PayloadTooLarge(f"The image needs a file larger than {max_bytes} bytes.", code=ErrorCode.IMAGE_TOO_LARGE)
    return data, "jpeg"


@dataclass(frozen=True, slots=True)
class ReencodedImage:
    """An uploaded image as it is stored.

    Attributes:
        data: The new file.
        format: Its format.
        width: Pixels of a row.
        height: Pixels of a column.
        sha256: Hash of the new file.
        pixels_sha256: As `pixels_sha256` returns it.
        uploaded_sha256: Hash of the file that was uploaded.
        uploaded_bytes: Its size.
    """

    data: bytes
    format: OutputFormat
    width: int
    height: int
    sha256: str
    pixels_sha256: str
    uploaded_sha256: str
    uploaded_bytes: int


def reencode_image(
    data: bytes, *, max_bytes: int, max_pixels: int, decode: DecodeImage = decode_image
) -> ReencodedImage:
    """Decode an uploaded image and encode it as it is stored.

    Args:
        data: The whole file.
        max_bytes: Largest file taken and written, in bytes.
        max_pixels: Most pixels taken.
        decode: Reads the file.

    Raises:
        PayloadTooLarge, UnsupportedImage, Invalid: As `decode_image` and `encode_upload`.
    """
    image = decode(data, max_bytes=max_bytes, max_pixels=max_pixels)
    file, image_format = encode_upload(image, uploaded=data, max_bytes=max_bytes)
    return ReencodedImage(
        data=file,
        format=image_format,
        width=image.width,
        height=image.height,
        sha256=hashlib.sha256(file).hexdigest(),
        pixels_sha256=pixels_sha256(image),
        uploaded_sha256=hashlib.sha256(data).hexdigest(),
        uploaded_bytes=len(data),
    )


class ReencodeImage(Protocol):
    """The signature of `reencode_image`, for callers that take a replacement."""

    def __call__(self, data: bytes, *, max_bytes: int, max_pixels: int) -> ReencodedImage: ...  # noqa: D102


def pixels_sha256(image: Image.Image) -> str:
    """Return the hash of an image's size and RGB pixels: equal for equal pictures, whatever file they came in."""
    digest = hashlib.sha256(f"{image.width}x{image.height}:".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


def read_settings(data: bytes) -> dict[str, Any] | None:
    """Read back the settings that `encode_image` wrote; None where there are none to read."""
    try:
        with Image.open(io.BytesIO(data), formats=[_sniff(data)]) as image:
            found: object = image.info.get("foxhound")
            if found is None and (match := _XMP_SETTINGS.search(_xmp_text(image))):
                found = unescape(match[1])
        settings = json.loads(str(found)) if found is not None else None
    except Exception:  # as in decode_image; an unreadable file carries no settings
        return None
    return settings if isinstance(settings, dict) else None


def read_parameters(data: bytes) -> str | None:
    """Read the `parameters` text before a PNG file's pixels; None where there is none to read."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            found: object = image.info.get("parameters")
    except Exception:  # as in decode_image; an unreadable file carries no text
        return None
    return found if isinstance(found, str) else None


def _saved(image: Image.Image, image_format: OutputFormat, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _sniff(data: bytes) -> Container:
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    raise UnsupportedImage


def _too_many_pixels(max_pixels: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The image has more than {max_pixels} pixels.", code=ErrorCode.TOO_MANY_PIXELS)


def _too_elongated() -> Invalid:
    detail = f"One side of the image is more than {_MAX_PROPORTION} times the other."
    return Invalid(detail, code=ErrorCode.TOO_ELONGATED)


def _corrupt() -> Invalid:
    return Invalid("The image file is damaged or cut off.", code=ErrorCode.CORRUPT_IMAGE)


def _parameters_text(settings: Mapping[str, Any], width: int, height: int) -> str:
    """Describe the image in the `parameters` convention of Stable Diffusion tools."""
    scheduler = settings.get("scheduler", "")
    fields = {
        "Steps": settings.get("num_inference_steps"),
        "Sampler": SAMPLER_NAMES.get(scheduler, scheduler) or None,
        "CFG scale": settings.get("guidance_scale"),
        "Seed": settings.get("seed"),
        "Size": f"{width}x{height}",
        "Model": settings.get("pack"),
        "Denoising strength": settings.get("strength"),
        "Mask blur": settings.get("mask_blur"),
    }
    lines = [str(settings.get("prompt", ""))]
    if negative_prompt := settings.get("negative_prompt"):
        lines.append(f"Negative prompt: {negative_prompt}")
    lines.append(", ".join(f"{name}: {value}" for name, value in fields.items() if value is not None))
    return "\n".join(lines).encode("utf-8", "replace").decode("utf-8")


def _png_texts(parameters: str, settings_json: str) -> PngImagePlugin.PngInfo:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", parameters)
    texts.add_itxt("foxhound", settings_json)
    texts.add_itxt("XML:com.adobe.xmp", _xmp(""))
    return texts


def _xmp(entries: str) -> bytes:
    return _XMP_TEMPLATE.format(entries).encode()


def _xmp_text(image: Image.Image) -> str:
    xmp = image.info.get("xmp", b"")
    return xmp.decode("utf-8", "replace") if isinstance(xmp, bytes) else str(xmp)


def _exif(parameters: str) -> bytes:
    exif = Image.Exif()
    comment = b"UNICODE\0" + parameters.encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return exif.tobytes()
