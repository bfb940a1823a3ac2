"""The contact sheet as a picture."""

import io

from PIL import Image

from app.services.contact_sheet import HEADER, LABEL_WIDTH, TILE, Row, Tile, contact_sheet, sheet_size


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
