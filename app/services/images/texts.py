"""The settings text that an image file carries, in the convention of AUTOMATIC1111's web UI.

Any thread may call it; it reads the file's head, not its pixels.
"""

from app.storage.image_formats import read_parameters


def parameters_text(data: bytes) -> str:
    """Return the `parameters` text of a PNG file; empty if the file has none or is no PNG."""
    return read_parameters(data) or ""
