"""Pictures in rows, as one PNG. Knows no records and opens no files but fonts; a pure function of what it is given.

Holds a core for up to a second or two: never on the event loop.
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
    """One picture of a row.

    Attributes:
        load: Brings up the picture; None where it cannot be shown.
        mark: `best` or `worst` gives it a green or a red frame, anything else none.
    """

    load: Callable[[], Image.Image | None]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A label and its pictures.

    Attributes:
        plain_label: ASCII, drawn where no font has the label's characters.
    """

    label: str
    tiles: Sequence[Tile]
    plain_label: str = ""


def sheet_size(num_rows: int, num_columns: int) -> tuple[int, int]:
    """Return width and height of a sheet in pixels."""
    return LABEL_WIDTH + num_columns * TILE, HEADER + num_rows * TILE


def contact_sheet(title: str, rows: Sequence[Row], num_columns: int, fonts: Sequence[Font] | None = None) -> bytes:
    """Draw a sheet; pictures keep their proportions, one is held at a time.

    Args:
        title: A line above all, in ASCII.
        rows: The rows, each of at most `num_columns` tiles.
        num_columns: Columns of the sheet, >= 1.
        fonts: What labels are drawn in, at least one that has ASCII; default: those of this machine.

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
    """Cut a text to a width in pixels; on one line, as Pillow measures no other."""
    line = " ".join(text.split())
    if font.getlength(line) <= width:
        return line
    while line and font.getlength(f"{line}…") > width:
        line = line[:-1]
    return f"{line}…"
