"""The child process that encodes large uploaded images again; started by `app.storage.upload_process`.

It reads one call after the other from standard input and writes each outcome to standard output, until standard input
ends. A call has a budget of processor time, after which the kernel ends the process. Imports no torch: the process has
about 45 MB.
"""

import ctypes
import json
import os
import signal
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import BinaryIO

from app.errors import AppError
from app.storage.image_formats import reencode_image

# A call: the limits of bytes and pixels, and the bytes of the image file, which follows.
CALL = struct.Struct(">QQQ")
# An outcome: the bytes of a JSON text and those of the new file, which follow.
OUTCOME = struct.Struct(">QQ")

# The process has a tenth of a busy core, and all of an idle one.
_NICE = 10
# An image of 40 megapixels takes one to three seconds of a core; this limits inputs that the other limits miss.
MAX_CPU_S = 20.0


def main(calls: BinaryIO, outcomes: BinaryIO) -> None:
    """Serve calls until there are no more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent ends first, and this process with its input
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone
    while head := calls.read(CALL.size):
        max_bytes, max_pixels, num_bytes = CALL.unpack(head)
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
        facts, file = _outcome(calls.read(num_bytes), max_bytes, max_pixels)
        signal.setitimer(signal.ITIMER_PROF, 0)
        text = json.dumps(facts).encode()
        outcomes.write(OUTCOME.pack(len(text), len(file)) + text + file)
        outcomes.flush()
        if trim is not None:
            trim(0)


def _outcome(uploaded: bytes, max_bytes: int, max_pixels: int) -> tuple[dict[str, object], bytes]:
    """Return the attributes of a `ReencodedImage`, or an error, and the new file."""
    try:
        made = asdict(reencode_image(uploaded, max_bytes=max_bytes, max_pixels=max_pixels))
    except AppError as error:
        return {"error": type(error).__name__, "detail": error.detail, "code": error.code}, b""
    file: bytes = made.pop("data")
    return made, file


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
