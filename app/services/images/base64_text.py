"""Base64 of images in requests. Imports no images; runs on the event loop, long texts on a thread."""

import asyncio
import base64
import binascii
import string

from app.error_codes import ErrorCode
from app.errors import Invalid

# Base64 up to this length is decoded on the event loop: 0.1 ms, less than the way to a thread and back.
_MAX_INLINE_CHARS = 65_536
_BASE64_SIGNS = (string.ascii_letters + string.digits + "+/").encode()


async def decode_base64(text: str, pointer: str) -> bytes:
    """Decode base64; `pointer` is where it was in the request.

    Raises:
        Invalid: It is anything else.
    """
    if len(text) <= _MAX_INLINE_CHARS:
        return _decoded(text, pointer)
    return await asyncio.to_thread(_decoded, text, pointer)


def _decoded(text: str, pointer: str) -> bytes:
    """Decode base64 as RFC 4648 has it in section 4, line breaks and spaces skipped; linear in the text's length.

    Raises:
        Invalid: It is anything else.
    """
    signs = text.encode("ascii", "replace").translate(None, b" \t\r\n")
    try:
        return base64.b64decode(signs, validate=True)
    except binascii.Error:
        raise Invalid.field(pointer, _base64_fault(signs), ErrorCode.BAD_BASE64) from None


def _base64_fault(signs: bytes) -> str:
    """Return what is wrong with text that is not base64."""
    if signs[:5].lower() == b"data:":
        return "Leave out the data URL's prefix, up to and including its comma."
    foreign = signs.rstrip(b"=").translate(None, _BASE64_SIGNS)
    if foreign and not foreign.strip(b"-_"):
        return "This is base64 for URLs. Send the alphabet with + and / in place of - and _."
    if foreign:
        return (
            "Send the image in base64: only A-Z, a-z, 0-9, +, / and padding by =. Spaces and line breaks are skipped."
        )
    return "The base64 is cut off or wrongly padded. Its length must be a multiple of 4, padded with = at the end."
