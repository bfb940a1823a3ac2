"""Decoding survives anything; encoding is deterministic and says how an image was made."""

import io
import json
import resource
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from app.errors import AppError, Invalid, PayloadTooLarge, UnsupportedImage
from app.image_spec import ImageSpec, OutputFormat
from app.storage.image_formats import MEDIA_TYPES, decode_image, encode_image, read_settings

# As app/storage/image_formats.py does; pytest puts the filters of its own in that one's place.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")

FORMATS: tuple[OutputFormat, ...] = ("png", "jpeg", "webp")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def decode(data: bytes, *, max_bytes: int = 20_000_000, max_pixels: int = 40_000_000) -> Image.Image:
    return decode_image(data, max_bytes=max_bytes, max_pixels=max_pixels)


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def photo(width: int = 48, height: int = 32) -> Image.Image:
    """A picture without symmetry and with detail everywhere."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x * 7 + y * 13) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(width: int, height: int, *extra: bytes, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    body = chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return PNG_SIGNATURE + body


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_lossless_files_give_their_pixels(image_format: str) -> None:
    decoded = decode(saved(photo(), image_format, lossless=True))
    assert decoded.mode == "RGB"
    assert np.array_equal(np.asarray(decoded), np.asarray(photo()))


def test_jpeg_gives_nearly_its_pixels() -> None:
    decoded = decode(saved(photo().resize((480, 320)), "jpeg", quality=95))
    difference = np.asarray(decoded, int) - np.asarray(photo().resize((480, 320)), int)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 100), (100, 1), (40_000, 400)])
def test_extreme_shapes_decode(width: int, height: int) -> None:
    assert decode(saved(Image.new("RGB", (width, height), "red"), "png")).size == (width, height)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png_modes_become_rgb(mode: str) -> None:
    white = Image.new(mode, (4, 3), 1 if mode == "1" else "white")
    decoded = decode(saved(white, "png"))
    assert decoded.mode == "RGB"
    assert decoded.getcolors() == [(12, (255, 255, 255))]


def test_cmyk_jpeg_becomes_rgb() -> None:
    red = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg", quality=95)
    r, g, b = np.asarray(decode(red))[8, 8].tolist()
    assert (r > 245, g < 10, b < 10) == (True, True, True)


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (128, 0), (129, 1), (32_896, 128), (65_535, 255)])
def test_sixteen_bits_are_scaled_to_eight(level: int, expected: int) -> None:
    image = Image.fromarray(np.full((3, 5), level, np.uint16))
    assert decode(saved(image, "png")).getcolors() == [(15, (expected,) * 3)]


def test_sixteen_bit_colour_is_scaled_to_eight() -> None:
    rows = (b"\0" + b"\x80\x80\xff\xff\x00\x00" * 2) * 2
    assert decode(png(2, 2, depth=16, rows=rows)).getcolors() == [(4, (128, 255, 0))]


def test_transparency_is_laid_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)])
    pixels = np.asarray(decode(saved(image, "png")))[0]
    assert pixels[:2].tolist() == [[255, 0, 0], [255, 255, 255]]
    assert pixels[2].tolist() == [127, 127, 127]


def test_a_palettes_transparent_entries_turn_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    for transparency in (0, bytes([0, 255])):
        pixels = np.asarray(decode(saved(image, "png", transparency=transparency)))
        assert pixels[0].tolist() == [[255, 255, 255], [200, 100, 50]]


def test_a_transparent_grey_level_turns_white() -> None:
    image = Image.fromarray(np.array([[7, 65_535 // 2]], np.uint16))
    key = chunk(b"tRNS", (7).to_bytes(2, "big"))
    plain = saved(image, "png")
    idat = plain.index(b"IDAT") - 4
    assert np.asarray(decode(plain[:idat] + key + plain[idat:]))[0].tolist() == [[255] * 3, [127] * 3]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", FORMATS)
def test_orientation_is_applied_once_and_dropped(orientation: int, image_format: str) -> None:
    upright = photo(64, 32)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that a camera's turn needs undone
    turned = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = saved(turned, image_format, exif=exif, lossless=True, quality=100, subsampling=0)

    decoded = decode(data)
    assert decoded.size == (64, 32)
    assert np.abs(np.asarray(decoded, int) - np.asarray(upright, int)).mean() < 3
    assert not decoded.getexif()


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0II" + bytes(100)])
def test_broken_exif_does_not_cost_the_image(exif: bytes) -> None:
    assert decode(saved(photo(), "jpeg", exif=exif)).size == (48, 32)


def test_metadata_is_dropped() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "camera"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (1.0, 2.0, 3.0)
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Author", "someone")
    data = saved(photo(), "png", exif=exif, pnginfo=texts, icc_profile=b"profile", dpi=(300, 300))
    again = saved(decode(data), "png")
    assert again == saved(photo(), "png")
    assert b"someone" not in again


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_the_first_frame_of_an_animation_is_taken(image_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = saved(frames[0], image_format, save_all=True, append_images=frames[1:], lossless=True)
    assert decode(data).getcolors() == [(64, (255, 0, 0))]


def test_the_first_picture_of_a_phones_double_jpeg_is_taken() -> None:
    data = saved(photo(), "mpo", save_all=True, append_images=[Image.new("RGB", (48, 32))])
    assert np.array_equal(np.asarray(decode(data)), np.asarray(decode(saved(photo(), "jpeg"))))


def test_what_follows_the_image_is_ignored() -> None:
    assert decode(saved(photo(), "png") + b"PK\x03\x04<script>").size == (48, 32)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("percent", range(10, 100, 10))
def test_a_cut_off_file_is_corrupt(image_format: str, percent: int) -> None:
    data = saved(photo(200, 150), image_format)
    with pytest.raises(Invalid) as caught:
        decode(data[: len(data) * percent // 100])
    assert caught.value.code == "corrupt_image"


@pytest.mark.parametrize("percent", range(10, 100, 10))
def test_a_cut_off_progressive_jpeg_is_corrupt(percent: int) -> None:
    data = saved(photo(200, 150), "jpeg", progressive=True)
    with pytest.raises(Invalid, match="damaged"):
        decode(data[: len(data) * percent // 100])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x89PNG",
        b"just text",
        b"<!doctype html><img src=x>",
        b'{"image": "x"}',
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n",
        b"%PDF-1.7\n",
        b"8BPS\0\1" + bytes(60),
        b"SIMPLE  =                    T" + b" " * 3000,
        bytes(range(256)),
    ],
    ids=lambda data: repr(data[:12]),
)
def test_other_bytes_are_unsupported(data: bytes) -> None:
    with pytest.raises(UnsupportedImage) as caught:
        decode(data)
    assert caught.value.code == "unsupported_image"


@pytest.mark.parametrize(
    "image_format", ["gif", "tiff", "bmp", "ico", "ppm", "icns", "dds", "tga", "pcx", "eps", "pdf"]
)
def test_other_image_formats_are_unsupported(image_format: str) -> None:
    with pytest.raises(UnsupportedImage):
        decode(saved(Image.new("RGB", (32, 32), "red"), image_format))


def test_too_many_bytes_are_refused_before_anything_is_read() -> None:
    with pytest.raises(PayloadTooLarge) as caught:
        decode(b"x" * 101, max_bytes=100)
    assert caught.value.code == "image_too_large"


def webp_header(width: int, height: int) -> bytes:
    content = b"\x2f" + ((width - 1) | (height - 1) << 14 | 1 << 28).to_bytes(4, "little") + bytes(64)
    body = b"WEBPVP8L" + len(content).to_bytes(4, "little") + content + b"\0"
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def jpeg_header(width: int, height: int) -> bytes:
    data = bytearray(saved(Image.new("RGB", (8, 8)), "jpeg"))
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


@pytest.mark.parametrize(
    "data",
    [png(30_000, 30_000), png(12_000, 12_000), jpeg_header(65_000, 65_000), webp_header(16_383, 16_383)],
    ids=["png-30000", "png-12000", "jpeg-65000", "webp-16383"],
)
def test_too_many_pixels_are_refused_by_the_header_alone(data: bytes) -> None:
    peak_before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started_s = time.process_time()
    with pytest.raises(PayloadTooLarge) as caught:
        decode(data)
    assert caught.value.code == "too_many_pixels"
    assert time.process_time() - started_s < 0.25
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before_kb < 50_000


@pytest.mark.parametrize(
    ("size", "is_taken"), [((300, 3), True), ((301, 3), False), ((1, 101), False), ((1, 65_535), False)]
)
def test_the_limit_of_proportions_is_exact(size: tuple[int, int], is_taken: bool) -> None:
    data = saved(Image.new("RGB", size), "png")
    if is_taken:
        assert decode(data).size == size
        return
    with pytest.raises(Invalid) as caught:
        decode(data)
    assert caught.value.code == "too_elongated"


def test_the_pixel_limit_is_exact() -> None:
    data = saved(photo(40, 30), "png")
    assert decode(data, max_pixels=1200).size == (40, 30)
    with pytest.raises(PayloadTooLarge):
        decode(data, max_pixels=1199)


@pytest.mark.parametrize(
    "data",
    [
        png(0, 0),
        png(4, 4, depth=7),
        png(4, 4, rows=b"\0" * 5),
        PNG_SIGNATURE,
        b"\xff\xd8\xff" + bytes(1000),
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + bytes(1000),
    ],
    ids=["0x0", "depth", "short", "signature", "jpeg", "webp"],
)
def test_broken_files_are_corrupt(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        decode(data)
    assert caught.value.code == "corrupt_image"


def test_a_jpeg_of_a_thousand_scans_is_refused_at_once() -> None:
    data = saved(photo(), "jpeg", progressive=True)
    last_scan = data[data.rfind(b"\xff\xda") : -2]
    with pytest.raises(Invalid):
        decode(data[:-2] + last_scan * 1000 + data[-2:])


@pytest.mark.parametrize("image_format", FORMATS)
def test_damaged_bytes_decode_or_fail_with_an_error_of_ours(image_format: str) -> None:
    data = saved(photo(), image_format)
    random = np.random.default_rng(1)
    outcomes, details = set(), set()
    for _ in range(300):
        broken = bytearray(data)
        for position in random.integers(0, len(broken), random.integers(1, 6)):
            broken[position] = random.integers(0, 256)
        try:
            outcomes.add(decode(bytes(broken), max_pixels=100_000).mode)
        except AppError as error:
            outcomes.add(error.code)
            details.add(error.detail)
    assert {"RGB", "corrupt_image"} <= outcomes
    assert not any("0x" in detail or "PIL" in detail for detail in details)


def test_decoding_never_warns() -> None:
    """In its own process with Python's usual filters, which pytest replaces."""
    script = """
import sys
from app.errors import AppError
from app.storage.image_formats import decode_image
for line in sys.stdin:
    try:
        decode_image(bytes.fromhex(line.strip()), max_bytes=10**6, max_pixels=10**6)
    except AppError:
        pass
"""
    rows = b"\0" * 52
    odd = [
        png(12_000, 12_000),
        png(4, 4, chunk(b"acTL", bytes(8)), rows=rows),
        saved(photo(), "jpeg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09\1\x0f\0\2\0\0\xff\xff\0\0\xff\xff"),
    ]
    for data in odd:  # each one does make Pillow warn
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Image.open(io.BytesIO(data)).close()
        assert caught
    lines = "\n".join(data.hex() for data in odd)
    run = subprocess.run([sys.executable, "-c", script], input=lines, capture_output=True, text=True, check=True)
    assert run.stderr == ""


PROMPT = 'a watercolor painting of a red fox, 50% <b> & "quoted" 狐 🦊'
SPEC = ImageSpec(PROMPT, "blurry", num_inference_steps=20, width=48, height=32, seed=42, scheduler="euler_a")
# As `Inference` records it with every image; tests/api/test_generate.py reads the text of a served one.
SETTINGS = {**SPEC.to_json(), "pack": "demo", "pack_revision": "0" * 64, "device": "cpu", "versions": {"torch": "2"}}
PARAMETERS = (
    'a watercolor painting of a red fox, 50% <b> & "quoted" 狐 🦊\n'
    "Negative prompt: blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7.5, Seed: 42, Size: 48x32, Model: demo"
)
PIXELS = np.asarray(photo())


def parameters_of(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            return image.info["parameters"]
        comment = image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment]
    assert comment.startswith(b"UNICODE\0")
    return comment[8:].decode("utf-16-be")


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_file_says_how_it_was_made(image_format: OutputFormat) -> None:
    data = encode_image(PIXELS, image_format, SETTINGS)
    assert parameters_of(data) == PARAMETERS
    assert read_settings(data) == SETTINGS
    with Image.open(io.BytesIO(data)) as image:
        assert Image.MIME[str(image.format)] == MEDIA_TYPES[image_format]
        xmp = ElementTree.fromstring(image.info["xmp"].strip(b"\xef\xbb\xbf"))  # noqa: S314 - our own bytes
    source = xmp.find(".//{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source is not None
    assert source.text == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


@pytest.mark.parametrize("image_format", FORMATS)
def test_equal_pixels_and_settings_give_equal_bytes(image_format: OutputFormat) -> None:
    reordered = dict(reversed(SETTINGS.items()))
    assert encode_image(PIXELS, image_format, SETTINGS) == encode_image(PIXELS.copy(), image_format, reordered)
    assert encode_image(PIXELS, image_format, SETTINGS) != encode_image(PIXELS, image_format, SETTINGS | {"seed": 43})


def test_png_keeps_the_pixels_and_names_its_settings_in_a_chunk() -> None:
    data = encode_image(PIXELS, "png", SETTINGS)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(np.asarray(image), PIXELS)
        assert json.loads(image.info["foxhound"]) == SETTINGS


@pytest.mark.parametrize("image_format", ["jpeg", "webp"])
def test_lossy_formats_stay_close(image_format: OutputFormat) -> None:
    smooth = np.asarray(photo().resize((480, 320)))
    difference = np.asarray(decode(encode_image(smooth, image_format, SETTINGS)), np.int64) - smooth
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("sign", ["🦊", "\0", "\x0b", "&", "]]>", "\udc80", "</foxhound:settings>"])
def test_no_prompt_breaks_a_file(image_format: OutputFormat, sign: str) -> None:
    settings = {"prompt": sign * (2000 // len(sign)), "negative_prompt": sign * (2000 // len(sign))}
    data = encode_image(PIXELS, image_format, settings)
    assert read_settings(data) == settings
    assert decode(data).size == (48, 32)


def test_absent_settings_leave_no_trace_in_the_text() -> None:
    assert parameters_of(encode_image(PIXELS, "png", {"prompt": "a fox"})) == "a fox\nSize: 48x32"


@pytest.mark.parametrize(
    "make", [lambda: b"", lambda: saved(photo(), "png"), lambda: saved(photo(), "jpeg"), lambda: b"\xff\xd8\xff"]
)
def test_files_of_others_have_no_settings(make: Callable[[], bytes]) -> None:
    assert read_settings(make()) is None


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_other_arrays_are_no_pixels(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_image(pixels, "png", {})
