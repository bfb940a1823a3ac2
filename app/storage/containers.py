"""Parsing of image containers before decoding: PNG chunks, JPEG segments, WebP chunks.

It reduces a file to the parts that encode the pixels of its first frame, in time linear in its bytes: parts are skipped
by their lengths and counted, and too many raise an error. So decoding time depends on the pixels alone. Metadata
that affects the pixels (orientation, colour profile) is returned separately; everything else, and whatever follows the
image, is dropped unread. Imports neither Pillow nor colour management. Pure functions of bytes; any thread.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Container = Literal["PNG", "JPEG", "WEBP"]

# Chunks of PNG and WebP: encoders write 20 MB of PNG in up to 2,500 chunks; a long animation has 10,000 frames.
MAX_CHUNKS = 20_000
# A camera's JPEG has dozens of segments, a progressive JPEG about ten scans.
MAX_JPEG_SEGMENTS = 2_000
MAX_JPEG_SCANS = 100
# Fill bytes, and others between segments, which decoders skip: sound files have a few.
MAX_JPEG_FILL_BYTES = 65_536

# Profiles of printers have up to 3 MB; Exif and XMP are read for the orientation only.
MAX_PROFILE_BYTES = 4_194_304
MAX_METADATA_BYTES = 1_048_576

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_XMP = b"XML:com.adobe.xmp\0\0\0"
_PNG_RAW_EXIF = b"Raw profile type exif\0"
_JPEG_EXIF, _JPEG_XMP, _JPEG_ICC = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0"
_SOI, _EOI, _SOS, _APP0, _APP1, _APP2, _APP14, _APP15, _COM = 0xD8, 0xD9, 0xDA, 0xE0, 0xE1, 0xE2, 0xEE, 0xEF, 0xFE
# After 0xFF: not a stuffed byte, fill byte or restart marker, which appear within the coded pixels.
_IS_MARKER = np.array([code not in (0x00, 0xFF, *range(0xD0, 0xD8)) for code in range(256)])
_WEBP_ALPHA, _WEBP_ANIMATION = 0x10, 0x02


class DamagedFile(ValueError):
    """The file's structure is invalid, or the file is truncated."""


class TooManyParts(ValueError):
    """The file has more chunks, segments, scans or fill bytes than any sound one of its size."""


@dataclass(frozen=True, slots=True)
class ColourKey:
    """The samples that mark transparent pixels in a PNG without an alpha channel.

    Attributes:
        samples: One for grey, three for colour, each 0 .. 2**depth - 1.
        depth: Bits a sample: 1, 2, 4, 8 or 16.
    """

    samples: tuple[int, ...]
    depth: int


@dataclass(slots=True)
class Parts:
    """The parts of a file.

    Attributes:
        file: The first frame as a file of its own, without metadata.
        exif: TIFF bytes, empty if there are none.
        xmp: XML, empty if there is none.
        profile: The ICC profile, empty if there is none of a usable size.
        key: The transparent colour of a PNG without an alpha channel or a palette; None if there is none.
        num_scans: Passes over all pixels during decoding: the scans of a JPEG, else 1.
    """

    file: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""
    profile: bytes = b""
    key: ColourKey | None = None
    num_scans: int = 1


def take_apart(data: bytes, container: Container) -> Parts:
    """Split a file into the pixels of its first frame and the metadata that affects them.

    Args:
        data: The whole file; it begins with the signature of its kind.
        container: The kind of file.

    Raises:
        DamagedFile: The file cannot be read.
        TooManyParts: The file has too many chunks, segments or scans.
    """
    return {"PNG": _png_parts, "JPEG": _jpeg_parts, "WEBP": _webp_parts}[container](data)


@dataclass(slots=True)
class _Png:
    first: dict[bytes, bytes] = field(default_factory=dict)
    pixels: list[bytes] = field(default_factory=list)
    noted: set[bytes] = field(default_factory=set)
    parts: Parts = field(default_factory=Parts)


def _png_parts(data: bytes) -> Parts:
    png = _Png()
    for kind, start, stop in _png_chunks(data):
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT"):
            content = data[start:stop]
            if zlib.crc32(data[start - 4 : stop]).to_bytes(4, "big") != data[stop : stop + 4]:
                raise DamagedFile
            if kind == b"IDAT":
                png.pixels.append(content)
            else:
                png.first.setdefault(kind, content)
        else:
            _note_png_metadata(png, kind, data, start, stop)
    header, transparency = png.first.get(b"IHDR", b""), png.first.get(b"tRNS")
    if len(header) != 13 or not png.pixels:
        raise DamagedFile
    chunks = [(b"IHDR", header)]
    if palette := png.first.get(b"PLTE"):
        chunks.append((b"PLTE", palette))
    if transparency is not None and header[9] == 3:
        chunks.append((b"tRNS", transparency))
    elif transparency is not None:
        png.parts.key = _colour_key(transparency, depth=header[8], colour_type=header[9])
    chunks += [(b"IDAT", b"".join(png.pixels)), (b"IEND", b"")]
    png.parts.file = _PNG_SIGNATURE + b"".join(_png_chunk(kind, content) for kind, content in chunks)
    return png.parts


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, and start and stop of its content; a missing IEND is accepted."""
    position, count, has_pixels = len(_PNG_SIGNATURE), 0, False
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        count += 1
        if count > MAX_CHUNKS:
            raise TooManyParts
        stop = position + 8 + length
        if kind == b"IEND":
            return
        if stop + 4 > len(data):
            break
        has_pixels = has_pixels or kind == b"IDAT"
        yield kind, position + 8, stop
        position = stop + 4
    if not has_pixels or position + 12 <= len(data):
        raise DamagedFile


def _note_png_metadata(png: _Png, kind: bytes, data: bytes, start: int, stop: int) -> None:
    """Record metadata that affects the pixels; only the first chunk of each kind, because decompression takes time."""
    parts = png.parts
    is_raw_exif = kind in (b"tEXt", b"zTXt") and data.startswith(_PNG_RAW_EXIF, start)
    is_xmp = kind == b"iTXt" and data.startswith(_PNG_XMP, start)
    max_bytes = MAX_PROFILE_BYTES if kind == b"iCCP" else MAX_METADATA_BYTES
    if not (kind in (b"iCCP", b"eXIf") or is_raw_exif or is_xmp) or kind in png.noted or stop - start > max_bytes:
        return
    png.noted.add(kind)
    if kind == b"iCCP":
        _, _, packed = data[start:stop].partition(b"\0")
        parts.profile = _inflated(packed[1:], MAX_PROFILE_BYTES)
    elif is_xmp:
        parts.xmp = data[start + len(_PNG_XMP) : stop]
    elif kind == b"eXIf":
        parts.exif = data[start:stop]
    elif not parts.exif:
        text = data[start + len(_PNG_RAW_EXIF) : stop]
        parts.exif = _from_hexadecimal(text if kind == b"tEXt" else _inflated(text[1:], MAX_METADATA_BYTES))


def _inflated(packed: bytes, max_bytes: int) -> bytes:
    """Return the decompressed bytes; empty if they are invalid or more than `max_bytes`."""
    try:
        plain = zlib.decompressobj().decompress(packed, max_bytes + 1)
    except zlib.error:
        return b""
    return plain if len(plain) <= max_bytes else b""


def _from_hexadecimal(text: bytes) -> bytes:
    """Parse ImageMagick's raw profile: a line break, a name, a length, then lines of hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii")).removeprefix(_JPEG_EXIF)
    except ValueError:
        return b""


def _colour_key(content: bytes, *, depth: int, colour_type: int) -> ColourKey | None:
    num_samples = {0: 1, 2: 3}.get(colour_type)
    if num_samples is None or len(content) < 2 * num_samples:
        return None
    return ColourKey(struct.unpack_from(f">{num_samples}H", content), depth)


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return len(content).to_bytes(4, "big") + kind + content + checksum.to_bytes(4, "big")


def _jpeg_parts(data: bytes) -> Parts:
    parts, kept, profile = Parts(), [b"\xff\xd8"], dict[int, bytes]()
    seen, num_scans = set[int](), 0
    for code, start, content, stop in _jpeg_segments(data):
        if code in (_APP1, _APP2):
            _note_jpeg_metadata(parts, profile, data[content : min(stop, content + 65_536)])
        elif code in (_APP0, _APP14):  # they define the colour coding; cameras write each at most once
            if code not in seen:
                kept.append(data[start:stop])
        elif not _APP0 <= code <= _APP15 and code != _COM:
            kept.append(data[start:stop])
            num_scans += code == _SOS
        seen.add(code)
    if _SOS not in seen:
        raise DamagedFile
    whole = b"".join(profile[number] for number in sorted(profile))
    parts.profile = whole if len(whole) <= MAX_PROFILE_BYTES else b""
    parts.file, parts.num_scans = b"".join(kept), num_scans
    return parts


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield each segment up to the end of the first image: code, start, start of the content, stop.

    Fill bytes and other bytes between segments are skipped; coded pixels belong to the segment before them.
    """
    octets = np.frombuffer(data, np.uint8)
    markers = np.flatnonzero((octets[:-1] == 0xFF) & _IS_MARKER[octets[1:]])
    position, count, num_scans, num_fill = 2, 0, 0, 0
    while (index := int(np.searchsorted(markers, position))) < len(markers):
        start = int(markers[index])
        code, count = data[start + 1], count + 1
        num_scans += code == _SOS
        num_fill += start - position
        if count > MAX_JPEG_SEGMENTS or num_scans > MAX_JPEG_SCANS or num_fill > MAX_JPEG_FILL_BYTES:
            raise TooManyParts
        if code in (_SOI, _EOI, 0x01):  # markers without a length
            position = start + 2
            if code == _EOI:
                yield code, start, position, position
                return
            continue
        position = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
        if position < start + 4 or position > len(data):
            raise DamagedFile
        if code == _SOS:
            index = int(np.searchsorted(markers, position))
            position = int(markers[index]) if index < len(markers) else len(data)
        yield code, start, start + 4, position


def _note_jpeg_metadata(parts: Parts, profile: dict[int, bytes], content: bytes) -> None:
    if content.startswith(_JPEG_EXIF) and not parts.exif:
        parts.exif = content[len(_JPEG_EXIF) :]
    elif content.startswith(_JPEG_XMP) and not parts.xmp:
        parts.xmp = content[len(_JPEG_XMP) :]
    elif content.startswith(_JPEG_ICC) and len(content) > 14:
        profile.setdefault(content[12], content[14:])  # a profile comes in numbered pieces


def _webp_parts(data: bytes) -> Parts:
    parts, chunks = Parts(), dict[bytes, bytes]()
    for kind, start, stop in _webp_chunks(data):
        if kind == b"ICCP" and stop - start <= MAX_PROFILE_BYTES:
            parts.profile = parts.profile or data[start:stop]
        elif kind == b"EXIF" and stop - start <= MAX_METADATA_BYTES:
            parts.exif = parts.exif or data[start:stop].removeprefix(_JPEG_EXIF)
        elif kind == b"XMP " and stop - start <= MAX_METADATA_BYTES:
            parts.xmp = parts.xmp or data[start:stop]
        elif kind in (b"VP8X", b"ALPH", b"VP8 ", b"VP8L", b"ANIM", b"ANMF"):
            chunks.setdefault(kind, data[start:stop])
    header = chunks.get(b"VP8X")
    if header:
        chunks[b"VP8X"] = bytes([header[0] & (_WEBP_ALPHA | _WEBP_ANIMATION)]) + header[1:]
    # In the order that the format requires; only the first frame of an animation.
    order = (b"VP8X", b"ANIM", b"ANMF") if b"ANMF" in chunks else (b"VP8X", b"ALPH", b"VP8 ", b"VP8L")
    body = b"WEBP" + b"".join(_webp_chunk(kind, chunks[kind]) for kind in order if kind in chunks)
    parts.file = b"RIFF" + len(body).to_bytes(4, "little") + body
    return parts


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's kind, and start and stop of its content."""
    end, position, count = 8 + int.from_bytes(data[4:8], "little"), 12, 0
    while position + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from("<4sI", data, position)
        count += 1
        if count > MAX_CHUNKS:
            raise TooManyParts
        start, stop = position + 8, position + 8 + length
        if stop > len(data):
            raise DamagedFile
        yield kind, start, stop
        position = stop + length % 2


def _webp_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) % 2)
