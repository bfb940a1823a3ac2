"""Whether an image file has several frames, from its chunks. Imports no decoder. Pure; any thread."""

import struct

from app.storage.containers import MAX_CHUNKS

_ANIMATION_FLAG = 0x02


def is_animated(data: bytes) -> bool:
    """Return whether a PNG or WebP file says that it is an animation; false for what cannot be read."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _has_animation_chunk(data)
    if data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X":
        return len(data) > 20 and bool(data[20] & _ANIMATION_FLAG)
    return False


def _has_animation_chunk(data: bytes) -> bool:
    """Return whether a PNG has `acTL`, which stands before its pixels."""
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 8 > len(data):
            return False
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind in (b"acTL", b"IDAT"):
            return bool(kind == b"acTL")
        position += 12 + length
    return False
