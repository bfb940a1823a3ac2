"""Pictures to send: paths, bytes or opened files, read whole into memory a call at a time."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from foxhound_client.steps import FormFile

Picture = str | os.PathLike[str] | bytes | BinaryIO

# What one call may carry. The service takes 100 files; of large ones fewer, so that a retry does not send gigabytes.
MAX_FILES, MAX_BYTES = 100, 64_000_000


def form_file(field: str, picture: Picture, number: int = 0) -> FormFile:
    """Return the part of a form for a picture.

    Args:
        field: Name of the form's field.
        picture: A path, the file's bytes, or an opened file; no text of a picture.
        number: Its number, which names it if it has no file name.

    Raises:
        OSError: The file cannot be read.
    """
    name = f"image-{number}"
    if isinstance(picture, bytes):
        data = picture
    elif isinstance(picture, str | os.PathLike):
        data, name = Path(picture).read_bytes(), Path(picture).name
    else:
        data, name = picture.read(), Path(str(getattr(picture, "name", name))).name
    return (field, (name, data, "application/octet-stream"))


def batches(field: str, pictures: Iterable[Picture]) -> Iterator[list[FormFile]]:
    """Yield the parts of a form for each call: at most 100 files and, unless one file is larger, 64 MB."""
    batch: list[FormFile] = []
    size = 0
    for number, picture in enumerate(pictures):
        part = form_file(field, picture, number)
        num_bytes = len(part[1][1])
        if batch and (len(batch) == MAX_FILES or size + num_bytes > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += num_bytes
    if batch:
        yield batch
