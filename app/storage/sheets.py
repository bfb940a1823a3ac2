"""One picture of several: images of one size in a grid, in their order.

Pure functions of files in memory; takes milliseconds to a second, so any thread but the event loop's may call them.
"""

import io
import math
from collections.abc import Callable, Sequence

from PIL import Image

# The longer side of a sheet, in pixels; larger images are made smaller.
MAX_SIDE = 2_048


def sheet_size(num_images: int, width: int, height: int) -> tuple[int, int]:
    """Return width and height of a sheet of images of a size, in pixels."""
    columns, rows, cell_width, cell_height = _layout(num_images, width, height)
    return columns * cell_width, rows * cell_height


def make_sheet(load: Sequence[Callable[[], Image.Image]], width: int, height: int) -> bytes:
    """Draw a sheet as PNG, from left to right and from the top; only one image is in memory at a time.

    Args:
        load: Returns each image (RGB), >= 1.
        width: Of each image, in pixels.
        height: Of each image, in pixels.
    """
    columns, rows, cell_width, cell_height = _layout(len(load), width, height)
    sheet = Image.new("RGB", (columns * cell_width, rows * cell_height), "white")
    for index, image in enumerate(each() for each in load):
        cell = image if image.size == (cell_width, cell_height) else image.resize((cell_width, cell_height))
        sheet.paste(cell, (index % columns * cell_width, index // columns * cell_height))
    buffer = io.BytesIO()
    sheet.save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def _layout(num_images: int, width: int, height: int) -> tuple[int, int, int, int]:
    """Return columns, rows, and the cells' width and height: as many columns as rows, or one more."""
    columns = math.ceil(math.sqrt(num_images))
    rows = math.ceil(num_images / columns)
    scale = min(1.0, MAX_SIDE / max(columns * width, rows * height))
    return columns, rows, max(1, int(width * scale)), max(1, int(height * scale))
