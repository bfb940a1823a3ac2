"""Drawing of a contact sheet: rows of labelled images as one PNG.

Imports no database models and opens no files except fonts. A pure function of its arguments that takes up to two
seconds: runs on a pool thread, not on the event loop.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from app.services.reports.label_fonts import Font, font_for, system_fonts

# Pixels.
TILE, FRAME, LABEL_WIDTH, HEADER = 96, 4, 180, 24
_COLOURS = {"best": "#1a7f37", "worst": "#cf222e"}
_PAPER, _INK, _MISSING = "white", "black", "#d0d7de"


@dataclass(frozen=True, slots=True)
class Tile:
    """One image of a row.

    Attributes:
        load: Returns the image; None if it cannot be read.
        mark: `best` gives a green frame, `worst` a red one, any other text none.
    """

    load: Callable[[], Image.Image | None]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A label and its images.

    Attributes:
        label: The text on the left.
        tiles: The images, from left to right.
        plain_label: ASCII text, drawn if no font has the label's characters.
    """

    label: str
    tiles: Sequence[Tile]
    plain_label: str = ""


def sheet_size(num_rows: int, num_columns: int) -> tuple[int, int]:
    """Return width and height of a sheet in pixels."""
    return LABEL_WIDTH + num_columns * TILE, HEADER + num_rows * TILE


def contact_sheet(title: str, rows: Sequence[Row], num_columns: int, fonts: Sequence[Font] | None = None) -> bytes:
    """Draw a sheet; images keep their aspect ratio, and only one is in memory at a time.

    Args:
        title: The line above the rows, in ASCII.
        rows: The rows, each of at most `num_columns` tiles.
        num_columns: Columns of the sheet, >= 1.
        fonts: Fonts for the labels, at least one with ASCII; None: those of this machine.

    Returns:
        A PNG file of `sheet_size`.
    """
    sheet = Image.new("RGB", sheet_size(len(rows), num_columns), _PAPER)
    draw = ImageDraw.Draw(sheet)
    fonts = fonts or system_fonts()
    draw.text((8, 5), _fitted(title, sheet.width - 16, fonts[0]), _INK, fonts[0])
    for row_index, row in enumerate(rows):
        top = HEADER + row_index * TILE
        font = font_for(row.label, fonts)
        label = row.plain_label if font is None else row.label
        font = font or fonts[0]
        draw.text((8, top + TILE // 2 - 8), _fitted(label, LABEL_WIDTH - 16, font), _INK, font)
        for column, tile in enumerate(row.tiles):
            _draw_tile(sheet, draw, tile, LABEL_WIDTH + column * TILE, top)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", compress_level=4)
    return buffer.getvalue()


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, tile: Tile, left: int, top: int) -> None:
    draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), fill=_COLOURS.get(tile.mark, _PAPER))
    side = TILE - 2 * FRAME
    picture = tile.load()
    if picture is None:
        draw.rectangle((left + FRAME, top + FRAME, left + FRAME + side - 1, top + FRAME + side - 1), fill=_MISSING)
        return
    picture.thumbnail((side, side))
    sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))


def _fitted(text: str, width: int, font: Font) -> str:
    """Return a text on one line, shortened to a width in pixels; Pillow measures single lines only."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"
