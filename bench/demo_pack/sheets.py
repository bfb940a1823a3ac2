"""Sheets of pictures: laid out in rows, and written as files that together stay small. Knows nothing of models."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

GAP = 4
QUALITIES = (90, 84, 78, 70)
LIMIT_BYTES = 2_500_000
OPTIONAL = {"failures.jpg"}


def page(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Put pictures of any sizes on white, row by row, each row as high as its highest picture."""
    width = max(sum(image.width + GAP for image in row) for row in rows) + GAP
    height = sum(max(image.height for image in row) + GAP for row in rows) + GAP
    sheet, y = Image.new("RGB", (width, height), "white"), GAP
    for row in rows:
        x = GAP
        for image in row:
            sheet.paste(image, (x, y))
            x += image.width + GAP
        y += max(image.height for image in row) + GAP
    return sheet


def in_rows(images: Sequence[Image.Image], columns: int) -> list[Sequence[Image.Image]]:
    """Break a list of pictures into rows."""
    return [images[start : start + columns] for start in range(0, len(images), columns)]


def compress(sheets: Mapping[str, Image.Image], limit_bytes: int = LIMIT_BYTES) -> dict[str, bytes]:
    """Encode all sheets as JPEG, in the best quality that keeps them within the limit together.

    Raises:
        ValueError: Even the lowest quality does not.
    """
    for quality in QUALITIES:
        files = {f"{name}.jpg": _jpeg(sheet, quality) for name, sheet in sheets.items()}
        if sum(map(len, files.values())) <= limit_bytes:
            return files
    raise ValueError(f"the sheets do not fit into {limit_bytes} bytes")


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Write the files; a sheet that this report has no reason for goes, anything else in the folder stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in OPTIONAL - set(files):
        (folder / name).unlink(missing_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def _jpeg(sheet: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
    return buffer.getvalue()
