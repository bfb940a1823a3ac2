"""What the attacks send, as bytes: JSON, pictures and forms that are small to make and dear to read. Pure."""

from __future__ import annotations

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image

BOUNDARY = "hostile"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
JSON = "application/json"


def unknown_members(count: int = 60_000) -> bytes:
    """Return a request for an image with so many members that there are not."""
    return json.dumps({"prompt": "a fox", **{f"promt{index}": 1 for index in range(count)}}).encode()


def empty_arrays(num_bytes: int = 29_000_000) -> bytes:
    """Return an array of empty arrays."""
    return b"[" + b"[]," * (num_bytes // 3) + b"[]]"


def template_bomb() -> bytes:
    """Return a recipe of 1,600 prompts, each of which uses its one variable 600 times."""
    classes = [{"name": f"c{index}", "prompts": ["{a}" * 600] * 100} for index in range(16)]
    return json.dumps({"name": "bomb", "classes": classes, "variables": {"a": ["x", "y"]}}).encode()


def bulky_recipe(name: str, num_bytes: int = 1_900_000) -> bytes:
    """Return a recipe of about so many bytes that makes no image."""
    prompts = ["x" * 1_900] * 100
    classes = [{"name": f"c{index}", "prompts": prompts} for index in range(num_bytes // 190_000)]
    return json.dumps({"name": name, "classes": classes, "train_per_class": 0, "test_per_class": 0}).encode()


def small_picture() -> bytes:
    """Return a PNG of 64 x 64 pixels."""
    return _encoded(Image.new("RGB", (64, 64), "orange"), "PNG")


def large_picture(seed: int) -> bytes:
    """Return a JPEG of 20 megapixels, another one for each seed."""
    tile = np.random.default_rng(seed).integers(0, 256, (50, 40, 3), dtype=np.uint8)
    return _encoded(Image.fromarray(tile).resize((4000, 5000), Image.Resampling.NEAREST), "JPEG")


def transparent_picture(seed: int) -> bytes:
    """Return a PNG of 20 megapixels with an alpha channel, another one for each seed."""
    tile = np.random.default_rng(seed).integers(0, 256, (50, 40, 4), dtype=np.uint8)
    return _encoded(Image.fromarray(tile).resize((4000, 5000), Image.Resampling.NEAREST), "PNG")


def full_segments(count: int = 150) -> bytes:
    """Return a JPEG with so many comments of 64 KB: 10 MB that are read, and taken."""
    jpeg = _encoded(Image.new("RGB", (64, 64), "orange"), "JPEG")
    return jpeg[:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) * count + jpeg[2:]


def fill_bytes(num_bytes: int = 10_000_000) -> bytes:
    """Return a JPEG with so many fill bytes before its second marker."""
    jpeg = _encoded(Image.new("RGB", (64, 64), "orange"), "JPEG")
    return jpeg[:2] + b"\xff" * num_bytes + jpeg[2:]


def empty_segments(count: int = 2_500_000) -> bytes:
    """Return a JPEG with so many comments of no byte."""
    jpeg = _encoded(Image.new("RGB", (64, 64), "orange"), "JPEG")
    return jpeg[:2] + b"\xff\xfe\x00\x02" * count + jpeg[2:]


def empty_chunks(count: int = 1_000_000) -> bytes:
    """Return a PNG with so many private chunks of no byte."""
    png = small_picture()
    chunk = struct.pack(">I", 0) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return png[:33] + chunk * count + png[33:]


def form(files: list[tuple[str, bytes]], fields: dict[str, str] | None = None) -> bytes:
    """Return a multipart form."""
    parts = [_part(f'form-data; name="{name}"', text.encode()) for name, text in (fields or {}).items()]
    parts += [_part(f'form-data; name="{name}"; filename="a"', data) for name, data in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def many_fields(count: int = 10_000) -> bytes:
    """Return a form of so many fields."""
    return form([], {f"field{index}": "x" for index in range(count)})


def long_part_head(num_bytes: int = 1_000_000) -> bytes:
    """Return a form whose one part has a head of so many bytes."""
    return form([], {"x" * num_bytes: "x"})


def _part(disposition: str, data: bytes) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + data + b"\r\n"


def _encoded(image: Image.Image, image_format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format)
    return file.getvalue()
