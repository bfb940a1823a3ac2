"""The contact sheet as a picture."""

import io

import pytest
from PIL import Image, ImageFont

from app.services.reports.contact_sheet import HEADER, LABEL_WIDTH, TILE, Row, Tile, contact_sheet, sheet_size
from app.services.reports.label_fonts import SIZE, font_for, system_fonts

PILLOWS = (ImageFont.load_default(SIZE),)
NAMES = ["狐狸", "лиса", "🦊", "renard café", "キツネ", "ثعلب", "a\u200db", "\U0010ffff"]


def at(sheet: Image.Image, row: int, column: int, offset: int) -> object:
    return sheet.getpixel((LABEL_WIDTH + column * TILE + offset, HEADER + row * TILE + offset))


def test_pictures_stand_in_their_places_with_their_frames() -> None:
    colours = ["red", "lime", "blue"]
    tiles = [
        Tile(lambda colour=colour: Image.new("RGB", (300, 300), colour), mark)  # type: ignore[misc]
        for colour, mark in zip(colours, ("best", "worst", ""), strict=True)
    ]
    rows = [Row("fox", tiles), Row("狐 \n" * 200, []), Row("gone", [Tile(lambda: None)])]
    sheet = Image.open(io.BytesIO(contact_sheet("a title", rows, 4)))
    sheet.load()
    assert (sheet.format, sheet.mode, sheet.size) == ("PNG", "RGB", sheet_size(3, 4))
    centres = [at(sheet, 0, column, TILE // 2) for column in range(4)]
    assert centres == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]
    assert [at(sheet, 0, column, 1) for column in range(4)] == [(26, 127, 55), (207, 34, 46), *[(255, 255, 255)] * 2]
    assert at(sheet, 1, 0, TILE // 2) == (255, 255, 255)
    assert at(sheet, 2, 0, TILE // 2) == (208, 215, 222)


def test_pictures_keep_their_proportions() -> None:
    wide = Row("wide", [Tile(lambda: Image.new("RGB", (400, 100), "red"))])
    sheet = Image.open(io.BytesIO(contact_sheet("", [wide], 1)))
    assert at(sheet, 0, 0, TILE // 2) == (255, 0, 0)
    assert sheet.getpixel((LABEL_WIDTH + TILE // 2, HEADER + TILE // 4)) == (255, 255, 255)
    assert sheet.getpixel((LABEL_WIDTH + 6, HEADER + TILE // 2)) == (255, 0, 0)


def test_equal_rows_give_equal_bytes() -> None:
    rows = [Row("fox", [Tile(lambda: Image.new("RGB", (8, 8), "red"), "best")])]
    assert contact_sheet("t", rows, 2) == contact_sheet("t", rows, 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_no_font_has_is_drawn_as_its_folder_and_never_in_boxes(name: str) -> None:
    named, plain = [Row(f"0 {name}", [], "0 class-1")], [Row("0 class-1", [])]
    assert contact_sheet("t", named, 2, PILLOWS) == contact_sheet("t", plain, 2, PILLOWS)


@pytest.mark.parametrize("name", NAMES)
def test_a_font_of_the_system_draws_a_name_only_if_it_has_every_character(name: str) -> None:
    font = font_for(name, system_fonts())
    box = None if font is None else bytes(font.getmask("\U0010ffff"))
    assert font is None or all(bytes(font.getmask(sign)) != box for sign in name if not sign.isspace())


def test_a_font_that_has_the_characters_is_found_after_one_that_has_not() -> None:
    try:
        dejavu = ImageFont.truetype("DejaVuSans.ttf", SIZE)
    except OSError:
        pytest.skip("this machine has no DejaVu Sans")
    fonts = (*PILLOWS, dejavu)
    assert [font_for(name, fonts) for name in ("fox", "лиса", "狐")] == [PILLOWS[0], dejavu, None]
    assert font_for("лиса 狐", fonts) is None
    assert contact_sheet("t", [Row("лиса", [], "lisa")], 2, fonts) != contact_sheet("t", [Row("lisa", [])], 2, fonts)
