"""A picture's colours come out as sRGB, as its profile, its depth and its transparency mean them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from app.storage.image_formats import decode_image, encode_upload, pixels_sha256

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
D50 = (0.9642, 1.0, 0.8249)
# Columns: XYZ under D50 of the primaries (ICC's registry; Display P3 as Apple ships it, Adobe RGB (1998)).
DISPLAY_P3 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])
ADOBE_RGB = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
SRGB = np.array([[0.4360, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])


def decode(data: bytes) -> np.ndarray:
    return np.asarray(decode_image(data, max_bytes=20_000_000, max_pixels=40_000_000))


def saved(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65_536))


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(fixed(value) for value in values)


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"


def srgb_curve() -> bytes:
    """sRGB's own curve, as ICC's parametric type 3."""
    values = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para\0\0\0\0" + struct.pack(">HH", 3, 0) + b"".join(fixed(value) for value in values)


def profile_of(space: bytes, tags: dict[bytes, bytes], *, kind: bytes = b"mntr", pcs: bytes = b"XYZ ") -> bytes:
    """Build an ICC profile of version 4."""
    tags = {b"wtpt": xyz(D50), b"desc": b"mluc" + bytes(4) + struct.pack(">II", 0, 12), **tags}
    table, body, offset = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, content in tags.items():
        content += b"\0" * (-len(content) % 4)
        table += name + struct.pack(">II", offset + len(body), len(content))
        body += content
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI", size, b"\0\0\0\0", 0x04200000) + kind + space + pcs + bytes(12) + b"acsp"
    head = (head + bytes(28)).ljust(68, b"\0") + b"".join(fixed(value) for value in D50)
    return head.ljust(128, b"\0") + table + body


def rgb_profile(primaries: np.ndarray, curve: bytes) -> bytes:
    columns = {name: xyz(tuple(primaries[:, i])) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    return profile_of(b"RGB ", {**columns, **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)})


def from_srgb(levels: np.ndarray) -> np.ndarray:
    values = levels / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_srgb(light: np.ndarray) -> np.ndarray:
    light = light.clip(0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


P3_PROFILE = rgb_profile(DISPLAY_P3, srgb_curve())
ADOBE_PROFILE = rgb_profile(ADOBE_RGB, gamma_curve(563 / 256))
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = profile_of(b"GRAY", {b"kTRC": gamma_curve(1.0)})

COLOURS = np.array(
    [[[200, 80, 60], [90, 170, 70], [60, 70, 160], [128, 128, 128], [255, 255, 255], [0, 0, 0], [220, 200, 90]]],
    np.uint8,
)  # fmt: skip


def expected_of(primaries: np.ndarray, light: np.ndarray) -> np.ndarray:
    return to_srgb(light @ primaries.T @ np.linalg.inv(SRGB).T)


@pytest.mark.parametrize("image_format", ["png", "webp"])
@pytest.mark.parametrize("space", ["Display P3", "Adobe RGB"])
def test_colours_of_wide_profiles_become_those_of_srgb(image_format: str, space: str) -> None:
    profile, primaries = {"Display P3": (P3_PROFILE, DISPLAY_P3), "Adobe RGB": (ADOBE_PROFILE, ADOBE_RGB)}[space]
    light = from_srgb(COLOURS) if space == "Display P3" else (COLOURS / 255) ** (563 / 256)
    decoded = decode(saved(Image.fromarray(COLOURS), image_format, icc_profile=profile, lossless=True))
    assert np.abs(decoded - expected_of(primaries, light)).max() <= 1.5
    assert np.abs(decoded.astype(int) - COLOURS).max() > 15  # as they would have been without the profile


def test_a_jpegs_profile_counts_in_pieces_too() -> None:
    flat = Image.new("RGB", (16, 16), (200, 80, 60))
    padded = P3_PROFILE + bytes(200_000)  # three segments
    expected = expected_of(DISPLAY_P3, from_srgb(np.array([200, 80, 60])))
    for profile in (P3_PROFILE, padded):
        decoded = decode(saved(flat, "jpeg", quality=100, subsampling=0, icc_profile=profile))
        assert np.abs(decoded - expected).max() <= 3


def test_the_real_displays_white_and_grey_stay_neutral() -> None:
    decoded = decode(saved(Image.fromarray(COLOURS), "png", icc_profile=P3_PROFILE))[0]
    assert decoded[4].tolist() == [255, 255, 255]
    assert decoded[5].tolist() == [0, 0, 0]
    assert np.ptp(decoded[3].astype(int)) <= 1


@pytest.mark.parametrize(
    "profile", [None, SRGB_PROFILE, rgb_profile(SRGB, srgb_curve()), b"no profile", P3_PROFILE[:200], GREY_PROFILE]
)
def test_srgb_and_unusable_profiles_leave_every_pixel_and_its_hash_alone(profile: bytes | None) -> None:
    data = saved(Image.fromarray(COLOURS), "png", icc_profile=profile)
    assert np.array_equal(decode(data), COLOURS)
    image = decode_image(data, max_bytes=10_000, max_pixels=100)
    assert pixels_sha256(image) == pixels_sha256(Image.fromarray(COLOURS))


def test_a_stored_upload_holds_converted_pixels_and_no_profile() -> None:
    data = saved(Image.fromarray(COLOURS), "png", icc_profile=P3_PROFILE)
    image = decode_image(data, max_bytes=10_000, max_pixels=100)
    stored, _ = encode_upload(image, uploaded=data, max_bytes=100_000)
    with Image.open(io.BytesIO(stored)) as again:
        assert "icc_profile" not in again.info
        assert np.array_equal(np.asarray(again), decode(data))


@pytest.mark.parametrize("image_format", ["png", "jpeg"])
def test_a_grey_profile_is_applied_to_grey(image_format: str) -> None:
    decoded = decode(saved(Image.new("L", (16, 16), 128), image_format, icc_profile=GREY_PROFILE, quality=100))
    expected = to_srgb(np.array(128 / 255))  # linear light: 188
    assert np.abs(decoded - expected).max() <= 1


def test_a_colour_profile_is_applied_to_grey_as_well() -> None:
    profile = rgb_profile(SRGB, gamma_curve(1.0))
    decoded = decode(saved(Image.new("L", (4, 4), 128), "png", icc_profile=profile))
    assert np.abs(decoded - to_srgb(np.array(128 / 255))).max() <= 1


def test_sixteen_bit_grey_has_its_profile_too() -> None:
    image = Image.fromarray(np.full((3, 3), 128 * 257, np.uint16))
    data = saved(image, "png")
    packed = chunk(b"iCCP", b"p\0\0" + zlib.compress(GREY_PROFILE))
    assert np.abs(decode(data[:33] + packed + data[33:]) - to_srgb(np.array(128 / 255))).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparency_is_laid_on_white_after_the_profile(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (200, 80, 60, 255))
    image.putpixel((1, 0), (200, 80, 60, 0))
    if mode == "P":
        image = Image.new("P", (2, 1))
        image.putpalette([200, 80, 60, 200, 80, 60])
        image.putpixel((1, 0), 1)
    options = {"transparency": bytes([255, 0])} if mode == "P" else {}
    decoded = decode(saved(image, "png", icc_profile=P3_PROFILE, **options))[0]
    assert np.abs(decoded[0] - expected_of(DISPLAY_P3, from_srgb(np.array([200, 80, 60])))).max() <= 1.5
    assert decoded[1].tolist() == [255, 255, 255]


def cmyk_profile() -> bytes:
    """A printer whose paper is white and whose inks only darken: L* = 100 (1 - K) (1 - 0.2 (C + M + Y)), no colour."""
    nodes = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    grid = b"".join(bytes([round(255 * (1 - k) * (1 - 0.2 * (c + m + y))), 128, 128]) for c, m, y, k in nodes)
    identity = b"".join(fixed(value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    ramp = bytes(range(256))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + grid + ramp * 3
    return profile_of(b"CMYK", {b"A2B0": table}, kind=b"prtr", pcs=b"Lab ")


def test_a_cmyk_pictures_profile_is_applied() -> None:
    profile = cmyk_profile()
    for ink, lightness in (((0, 0, 0, 0), 100), ((255, 0, 0, 0), 80), ((255, 255, 0, 0), 60), ((0, 0, 0, 255), 0)):
        data = saved(Image.new("CMYK", (16, 16), ink), "jpeg", quality=100, icc_profile=profile)
        light = ((lightness + 16) / 116) ** 3 if lightness > 8 else 0.0
        assert np.abs(decode(data) - to_srgb(np.array(light))).max() <= 3


def test_a_cmyk_picture_without_a_profile_stays_as_pillow_reads_it() -> None:
    data = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg", quality=100)
    for profile in (None, P3_PROFILE):  # a profile of another kind says nothing
        again = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "jpeg", quality=100, icc_profile=profile)
        assert np.array_equal(decode(again), decode(data))
    assert np.abs(decode(data)[0, 0].astype(int) - [255, 0, 0]).max() <= 2


def chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def png(width: int, rows: bytes, *extra: bytes, depth: int, colour: int, height: int = 1, interlace: int = 0) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    body = chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return PNG_SIGNATURE + body


@pytest.mark.parametrize(
    ("depth", "row", "expected"),
    [
        (1, b"\x40", [0, 255, 0]),
        (2, b"\x18", [0, 85, 170]),
        (4, b"\x01\x20", [0, 17, 34]),
        (8, b"\0\x01\x02", [0, 1, 2]),
        (16, b"\0\0\0\x01\x80\x80", [0, 0, 128]),
    ],
)
@pytest.mark.parametrize("clear", [0, 1])
def test_a_transparent_grey_turns_white_at_every_depth(depth: int, row: bytes, expected: list, clear: int) -> None:
    key = chunk(b"tRNS", struct.pack(">H", clear))
    decoded = decode(png(3, b"\0" + row, key, depth=depth, colour=0))[0]
    whitened = [255 if k == clear or (depth == 1 and k == 2 and clear == 0) else v for k, v in enumerate(expected)]
    assert decoded.tolist() == [[level] * 3 for level in whitened]


def test_a_transparent_colour_turns_white_at_8_and_16_bits() -> None:
    key = chunk(b"tRNS", struct.pack(">HHH", 1, 2, 3))
    decoded = decode(png(2, b"\0" + bytes([1, 2, 3, 1, 2, 4]), key, depth=8, colour=2))[0]
    assert decoded.tolist() == [[255] * 3, [1, 2, 4]]
    # Of 16 bits all count: a colour that differs in the lowest one is another.
    key = chunk(b"tRNS", struct.pack(">HHH", 257, 514, 771))
    rows = b"\0" + struct.pack(">HHHHHH", 257, 514, 771, 257, 514, 772)
    decoded = decode(png(2, rows, key, depth=16, colour=2))[0]
    assert decoded.tolist() == [[255] * 3, [1, 2, 3]]


@pytest.mark.parametrize("interlace", [0, 1])
def test_sixteen_bit_colour_is_rounded_not_cut(interlace: int) -> None:
    levels = [0, 128, 129, 0x80FF, 0xFF00, 0xFEFF]
    data = png(2, b"\0" + struct.pack(">HHHHHH", *levels), depth=16, colour=2)
    if interlace:  # Adam7 of 2 x 1: pass 1 has the first pixel, pass 6 the second
        rows = b"\0" + struct.pack(">HHH", *levels[:3]) + b"\0" + struct.pack(">HHH", *levels[3:])
        data = png(2, rows, depth=16, colour=2, interlace=1)
    expected = [(level * 255 + 32_767) // 65_535 for level in levels]
    assert decode(data).reshape(-1).tolist() == expected == [0, 0, 1, 128, 254, 254]


def test_sixteen_bit_transparency_is_laid_on_white() -> None:
    rows = b"\0" + struct.pack(">8H", 0xFFFF, 0, 0, 0xFFFF, 0, 0, 0, 0)
    assert decode(png(2, rows, depth=16, colour=6))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    rows = b"\0" + struct.pack(">4H", 0x8080, 0xFFFF, 0x8080, 0)
    assert decode(png(2, rows, depth=16, colour=4))[0].tolist() == [[128] * 3, [255] * 3]


def test_a_large_sixteen_bit_picture_is_the_same_in_all_bands(tmp_path: Path) -> None:
    levels = np.random.default_rng(1).integers(0, 65_536, (300, 5, 3), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    expected = (levels.astype(int) * 255 + 32_767) // 65_535
    assert np.array_equal(decode(png(5, rows, depth=16, colour=2, height=300)), expected)


def test_gamma_and_primaries_of_a_png_are_ignored() -> None:
    data = saved(Image.fromarray(COLOURS), "png")
    gamma = chunk(b"gAMA", struct.pack(">I", 100_000))
    assert np.array_equal(decode(data[:33] + gamma + data[33:]), COLOURS)
