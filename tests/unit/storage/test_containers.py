"""What does not belong to the pixels is neither a fault nor a cost, and the pixels are the right ones."""

import io
import struct
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from app.errors import Invalid
from app.storage.containers import MAX_CHUNKS, MAX_JPEG_FILL_BYTES, MAX_JPEG_SCANS, MAX_JPEG_SEGMENTS
from app.storage.image_formats import decode_image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEN_MEGABYTES = 10_000_000


def decode(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data, max_bytes=20_000_000, max_pixels=40_000_000))


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def photo(width: int = 48, height: int = 32) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x * 7 + y * 13) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def segment(code: int, content: bytes) -> bytes:
    return bytes([0xFF, code]) + (len(content) + 2).to_bytes(2, "big") + content


def png_with(*chunks: bytes) -> bytes:
    """The photo with further chunks behind its header."""
    data = saved(photo(), "png")
    return data[:33] + b"".join(chunks) + data[33:]


def jpeg_with(extra: bytes) -> bytes:
    """The photo with further bytes behind its start."""
    data = saved(photo(), "jpeg", quality=95)
    return data[:2] + extra + data[2:]


def webp_with(extra: bytes) -> bytes:
    body = saved(photo(), "webp", lossless=True)[8:] + extra
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def big_segments(code: int, head: bytes = b"") -> bytes:
    return segment(code, head + bytes(65_000 - len(head))) * 40


SMALL_BOMB = zlib.compress(bytes(6_000_000))
BOMB = zlib.compress(bytes(100_000_000))
PIXELS = np.asarray(photo())
PLAIN_JPEG = saved(photo(), "jpeg", quality=95)

SOUND_PNGS = {
    "text of 3 MiB": png_with(chunk(b"tEXt", b"a\0" + b"x" * 3_000_000)),
    "packed text of 100 MB": png_with(chunk(b"zTXt", b"a\0\0" + BOMB)),
    "80 texts of 1 MB": png_with(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 80),
    "international text": png_with(chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
    "profile of 100 MB": png_with(chunk(b"iCCP", b"a\0\0" + BOMB)),
    "profile that is none": png_with(chunk(b"iCCP", b"a\0\0" + zlib.compress(b"profile" * 300_000))),
    "profile not packed": png_with(chunk(b"iCCP", b"a\0\0junk")),
    "animation control": png_with(chunk(b"acTL", bytes(8))),
    "bad checksum of a text": png_with(chunk(b"tEXt", b"a\0b")[:-1] + b"\0"),
    "data behind the end": saved(photo(), "png") + bytes(100_000),
    "no end": saved(photo(), "png")[:-12],
    "5,000 texts": png_with(*[chunk(b"tEXt", b"a\0b")] * 5_000),
}


@pytest.mark.parametrize("data", SOUND_PNGS.values(), ids=SOUND_PNGS.keys())
def test_a_sound_png_gives_its_pixels_whatever_else_it_holds(data: bytes) -> None:
    assert np.array_equal(decode(data), PIXELS)


SOUND_JPEGS = {
    "a film behind": PLAIN_JPEG + b"\0\0\0\x18ftypmp42" + bytes(200_000),
    "another picture behind": PLAIN_JPEG + saved(Image.new("RGB", (9, 9)), "jpeg"),
    "scans behind": PLAIN_JPEG + b"\xff\xda" * 5_000,
    "raw data in segments": jpeg_with(big_segments(0xE4)),
    "comments": jpeg_with(big_segments(0xFE)),
    "exif of 40 segments": jpeg_with(big_segments(0xE1, b"Exif\0\0")),
    "xmp of 40 segments": jpeg_with(big_segments(0xE1, b"http://ns.adobe.com/xmp/extension/\0")),
    "profile of 40 pieces": jpeg_with(big_segments(0xE2, b"ICC_PROFILE\0\1\1")),
    "multi-picture index": jpeg_with(segment(0xE2, b"MPF\0" + bytes(100))),
    "a preview within": jpeg_with(segment(0xE5, saved(Image.new("RGB", (9, 9)), "jpeg"))),
    "fill bytes": jpeg_with(b"\xff" * 1_000),
    "fill bytes before the end": PLAIN_JPEG[:-2] + b"\xff" * 1_000 + b"\xff\xd9",
}


@pytest.mark.parametrize("data", SOUND_JPEGS.values(), ids=SOUND_JPEGS.keys())
def test_a_sound_jpeg_gives_its_pixels_whatever_else_it_holds(data: bytes) -> None:
    with Image.open(io.BytesIO(PLAIN_JPEG)) as image:
        assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "extra",
    [b"ICCP" + struct.pack("<I", 7) + b"profile\0", b"XMP " + struct.pack("<I", 2_000_000) + bytes(2_000_000)],
    ids=["profile", "xmp"],
)
def test_a_sound_webp_gives_its_pixels_whatever_else_it_holds(extra: bytes) -> None:
    assert np.array_equal(decode(webp_with(extra)), PIXELS)
    assert np.array_equal(decode(webp_with(b"") + b"behind" * 1_000), PIXELS)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_every_kind_of_jpeg_stays_the_same_picture(mode: str, options: dict) -> None:
    data = saved(photo(200, 150).convert(mode), "jpeg", **options)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"lossless": True, "save_all": True}])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_kind_of_webp_stays_the_same_picture(mode: str, options: dict) -> None:
    picture = photo().convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    if "save_all" in options:
        options = {**options, "append_images": [Image.new("RGB", (48, 32))]}
    data = saved(picture, "webp", **options)
    with Image.open(io.BytesIO(data)) as image:
        rgba = image.convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    assert np.array_equal(decode(data), np.asarray(expected))


def test_a_damaged_pixel_chunk_is_corrupt() -> None:
    data = bytearray(saved(photo(), "png"))
    data[-14] ^= 1  # the last byte of the pixels' checksum
    with pytest.raises(Invalid) as caught:
        decode(bytes(data))
    assert caught.value.code == "corrupt_image"


def with_orientation(image_format: str, how: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    xmp = b'<x tiff:Orientation="6"/>'
    if how == "raw profile":
        text = exif.tobytes().hex()
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Raw profile type exif", f"\nexif\n{len(text) // 2:8}\n{text}\n", zip=True)
        return saved(photo(), image_format, pnginfo=texts)
    if how == "xmp" and image_format == "png":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", xmp.decode())
        return saved(photo(), image_format, pnginfo=texts)
    options = {"xmp": xmp} if how == "xmp" else {"exif": exif}
    return saved(photo(), image_format, quality=95, **options)


@pytest.mark.parametrize(
    ("image_format", "how"),
    [(name, how) for name in ("png", "jpeg", "webp") for how in ("exif", "xmp")] + [("png", "raw profile")],
)
def test_the_orientation_is_found_wherever_it_stands(image_format: str, how: str) -> None:
    assert decode(with_orientation(image_format, how)).shape == (48, 32, 3)


# A reader of all of Exif would read a megabyte for each of the 65,535 entries.
GREEDY_EXIF = b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x9286, 7, 60_000, 8) * 4_500


HOSTILE = {
    "fill bytes": lambda: jpeg_with(b"\xff" * TEN_MEGABYTES),
    "junk between segments": lambda: jpeg_with(b"\xff\x00" * (TEN_MEGABYTES // 2)),
    "zeros between segments": lambda: jpeg_with(segment(0xFE, b"") + bytes(TEN_MEGABYTES)),
    "empty segments": lambda: jpeg_with(segment(0xE3, b"") * (TEN_MEGABYTES // 4)),
    "empty comments": lambda: jpeg_with(segment(0xFE, b"") * (TEN_MEGABYTES // 4)),
    "lone markers": lambda: jpeg_with(b"\xff\x01" * (TEN_MEGABYTES // 2)),
    "starts": lambda: jpeg_with(b"\xff\xd8" * (TEN_MEGABYTES // 2)),
    "empty tables": lambda: jpeg_with(segment(0xDB, b"") * (TEN_MEGABYTES // 4)),
    "scans": lambda: PLAIN_JPEG[:-2] + PLAIN_JPEG[PLAIN_JPEG.index(b"\xff\xda") : -2] * 4_000 + b"\xff\xd9",
    "greedy exif": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + GREEDY_EXIF)),
    "exif segments": lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(5_000)) * 1_900),
    "empty chunks": lambda: png_with(chunk(b"teSt", b"") * (TEN_MEGABYTES // 12)),
    "empty texts": lambda: png_with(chunk(b"tEXt", b"a\0") * (TEN_MEGABYTES // 14)),
    "empty pixels": lambda: png_with(chunk(b"IDAT", b"") * (TEN_MEGABYTES // 12)),
    "pixels byte by byte": lambda: bytes_of_pixels(saved(photo(700, 700), "png")),
    "profiles that unpack to too much": lambda: png_with(chunk(b"iCCP", b"a\0\0" + SMALL_BOMB) * 1_500),
    "raw profiles that do": lambda: png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + SMALL_BOMB) * 1_500),
    "empty riff chunks": lambda: webp_with(b"teSt\0\0\0\0" * (TEN_MEGABYTES // 8)),
    "10,000 frames": lambda: frames_of_webp(10_000),
    "100,000 frames": lambda: frames_of_webp(100_000),
}  # fmt: skip


def bytes_of_pixels(data: bytes) -> bytes:
    """The same PNG with a chunk for each byte of its pixels."""
    parts = PNG_SIGNATURE + data[8:33]
    start = data.index(b"IDAT") + 4
    pixels = data[start : start + int.from_bytes(data[start - 8 : start - 4], "big")]
    return parts + b"".join(chunk(b"IDAT", bytes([byte])) for byte in pixels[:100_000]) + chunk(b"IEND", b"")


def frames_of_webp(num_frames: int) -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = saved(frames[0], "webp", save_all=True, append_images=frames[1:], lossless=True)
    first = data.index(b"ANMF")
    length = 8 + int.from_bytes(data[first + 4 : first + 8], "little")
    body = data[8:first] + data[first : first + length] * num_frames
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def outcome(data: bytes) -> str:
    try:
        decode(data)
    except Invalid as error:
        return error.code
    return "read"


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_built_to_be_slow_is_read_or_refused_at_once(make: Callable[[], bytes]) -> None:
    data = make()
    started_s = time.process_time()
    assert outcome(data) in ("read", "too_many_chunks", "corrupt_image")
    assert time.process_time() - started_s < 1.0  # Pillow alone: 2 to 7 s each


def test_the_bounds_are_exact() -> None:
    assert np.array_equal(decode(png_with(*[chunk(b"tEXt", b"a\0")] * (MAX_CHUNKS - 3))), PIXELS)
    segments = count_segments()
    decode(jpeg_with(segment(0xE3, b"") * (MAX_JPEG_SEGMENTS - segments)))
    decode(jpeg_with(b"\xff" * MAX_JPEG_FILL_BYTES))
    for data in (
        png_with(*[chunk(b"tEXt", b"a\0")] * (MAX_CHUNKS - 2)),
        jpeg_with(segment(0xE3, b"") * (MAX_JPEG_SEGMENTS - segments + 1)),
        jpeg_with(b"\xff" * (MAX_JPEG_FILL_BYTES // 2) + segment(0xE3, b"") + b"\xff" * (MAX_JPEG_FILL_BYTES // 2 + 1)),
    ):
        with pytest.raises(Invalid) as caught:
            decode(data)
        assert caught.value.code == "too_many_chunks"


def count_segments() -> int:
    """Segments of the plain JPEG: JFIF, two tables, a frame, four codes, a scan, the end."""
    return sum(PLAIN_JPEG.count(bytes([0xFF, code])) for code in (0xE0, 0xDB, 0xC0, 0xC4, 0xDA, 0xD9))


def test_a_jpeg_of_as_many_scans_as_are_taken_is_read() -> None:
    data = saved(photo(), "jpeg", progressive=True)
    last_scan = data[data.rfind(b"\xff\xda") : -2]
    num_scans = data.count(b"\xff\xda")
    assert decode(data[:-2] + last_scan * (MAX_JPEG_SCANS - num_scans) + data[-2:]).shape == (32, 48, 3)
    with pytest.raises(Invalid, match="pieces"):
        decode(data[:-2] + last_scan * (MAX_JPEG_SCANS - num_scans + 1) + data[-2:])


def test_a_large_jpeg_has_fewer_scans() -> None:
    data = saved(Image.new("RGB", (6_000, 6_000)), "jpeg", progressive=True)
    last_scan = data[data.rfind(b"\xff\xda") : -2]
    assert outcome(data[:-2] + last_scan * 12 + data[-2:]) == "read"
    started_s = time.process_time()
    assert outcome(data[:-2] + last_scan * 60 + data[-2:]) == "too_many_chunks"
    assert time.process_time() - started_s < 0.5
