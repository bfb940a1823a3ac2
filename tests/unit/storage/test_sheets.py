"""A sheet of several images: their order, its size, and large ones made smaller."""

import io
from functools import partial

import pytest
from PIL import Image

from app.storage.sheets import MAX_SIDE, make_sheet, sheet_size

COLOURS = ("red", "lime", "blue", "yellow", "cyan")


@pytest.mark.parametrize(
    ("num_images", "size"), [(1, (64, 32)), (2, (128, 32)), (3, (128, 64)), (4, (128, 64)), (5, (192, 64))]
)
def test_a_sheet_is_about_as_many_images_wide_as_high(num_images: int, size: tuple[int, int]) -> None:
    assert sheet_size(num_images, 64, 32) == size


def test_images_lie_in_their_order() -> None:
    load = [partial(Image.new, "RGB", (64, 32), colour) for colour in COLOURS]
    with Image.open(io.BytesIO(make_sheet(load, 64, 32)), formats=["PNG"]) as sheet:
        assert sheet.size == (192, 64)
        centres = [(32 + 64 * column, 16 + 32 * row) for row in range(2) for column in range(3)]
        found = [sheet.getpixel(centre) for centre in centres]
    assert found == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 255, 255)]


def test_a_sheet_of_large_images_is_made_smaller() -> None:
    load = [partial(Image.new, "RGB", (1024, 512), colour) for colour in COLOURS]
    with Image.open(io.BytesIO(make_sheet(load, 1024, 512)), formats=["PNG"]) as sheet:
        assert sheet.size == sheet_size(5, 1024, 512)
        assert max(sheet.size) <= MAX_SIDE
        assert abs(sheet.width / sheet.height - 3) < 0.02
