"""A file is large by its bytes or by the pixels that its header names, and when its header cannot be read."""

import io

import pytest
from PIL import Image

from app.storage.picture_size import SMALL_BYTES, is_large

SMALL, LARGE = (1_024, 1_024), (1_025, 1_024)


def saved(size: tuple[int, int], image_format: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, image_format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [
        ("png", "RGB", {}),
        ("jpeg", "RGB", {}),
        ("jpeg", "CMYK", {}),
        ("jpeg", "RGB", {"progressive": True}),
        ("jpeg", "RGB", {"exif": b"Exif\0\0" + bytes(60_000), "comment": b"\xff\xc0" * 1_000}),
        ("webp", "RGB", {}),
        ("webp", "RGB", {"lossless": True}),
        ("webp", "RGBA", {}),
        ("webp", "RGB", {"exif": b"Exif\0\0II*\0"}),
    ],
)
def test_the_limit_of_pixels_is_exact(image_format: str, mode: str, options: dict) -> None:
    assert not is_large(saved(SMALL, image_format, mode, **options))
    assert is_large(saved(LARGE, image_format, mode, **options))


def test_the_limit_of_bytes_is_exact() -> None:
    data = saved((8, 8), "png")
    padding = bytes(SMALL_BYTES - len(data))
    assert not is_large(data + padding)
    assert is_large(data + padding + b"\0")


def test_fill_bytes_do_not_hide_a_size() -> None:
    for size, is_expected in ((SMALL, False), (LARGE, True)):
        data = saved(size, "jpeg")
        assert is_large(data[:2] + b"\xff" * 10 + data[2:]) is is_expected


@pytest.mark.parametrize(
    "data",
    [
        saved((8, 8), "png")[:20],
        saved((8, 8), "jpeg")[:20],
        saved((8, 8), "webp")[:20],
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\0tEXt\0\0\0\0" + saved(LARGE, "png")[8:],  # the header is not first
        b"\xff\xd8" + b"\xff\xfe\0\x02" * 200 + saved((8, 8), "jpeg")[2:],  # nor soon
    ],
)
def test_a_size_that_is_not_found_is_large(data: bytes) -> None:
    assert is_large(data)


def test_what_is_no_image_is_refused_at_once() -> None:
    assert not is_large(b"GIF89a" + bytes(100))
    assert not is_large(b"")
