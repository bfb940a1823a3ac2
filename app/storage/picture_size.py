"""Whether an image file takes long to decode, from its first bytes. Imports no decoder. Pure; any thread.

It reads the headers that decoders read, and verifies nothing else.
"""

import struct

# 10 to 50 ms on one core, the longest with transparency; a picture of 512 x 512 pixels takes 5.
SMALL_PIXELS = 1_048_576
SMALL_BYTES = 1_048_576

# A JPEG names its size behind a few segments.
_MAX_SEGMENTS = 100
# Frames of every coding; their numbers have other meanings for 0xC4, 0xC8 and 0xCC.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def is_large(data: bytes) -> bool:
    """Return whether a file may take longer to decode than a small image; true if its size is not found."""
    return len(data) > SMALL_BYTES or _num_pixels(data) > SMALL_PIXELS


def size_of(data: bytes) -> tuple[int, int] | None:
    """Return the width and height that a file's header names, before any rotation; None where it names none."""
    try:
        width, height = _size(data)
    except struct.error:  # truncated
        return None
    return (width, height) if width and height else None


def _num_pixels(data: bytes) -> int:
    """Return the pixels that the header names; more than any image has where it names none."""
    try:
        width, height = _size(data)
    except struct.error:  # truncated
        return SMALL_PIXELS + 1
    return width * height


def _size(data: bytes) -> tuple[int, int]:
    if data.startswith(b"\x89PNG") and data[12:16] == b"IHDR":
        return struct.unpack_from(">II", data, 16)
    if data.startswith(b"\xff\xd8"):
        return _jpeg_size(data)
    if data[8:12] == b"WEBP":
        return _webp_size(data)
    if data.startswith(b"\x89PNG"):  # another chunk is first
        raise struct.error
    return 0, 0  # refused by its first bytes


def _jpeg_size(data: bytes) -> tuple[int, int]:
    position = 2
    for _ in range(_MAX_SEGMENTS):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker >> 8 != 0xFF:
            break
        if marker == 0xFFFF:  # a fill byte
            position += 1
            continue
        if marker & 0xFF in _FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        position += 2 + length
    raise struct.error


def _webp_size(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        return (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF
