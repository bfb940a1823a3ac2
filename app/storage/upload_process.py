"""Encodes large uploaded images again in processes of their own, so that they occupy neither Python's lock nor memory.

Pillow holds the lock for milliseconds at a time while it encodes, and for more than a hundred while it composites or
decodes some kinds of images; each time every other request waits. Blocking; any thread except the event loop's.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Any

from app.error_codes import ErrorCode
from app.errors import AppError, Invalid, PayloadTooLarge, Unavailable, UnsupportedImage
from app.storage.image_formats import ReencodedImage, reencode_image
from app.storage.picture_size import is_large
from app.storage.upload_child import CALL, OUTCOME

COMMAND = (sys.executable, "-m", "app.storage.upload_child")
_CLOSE_TIMEOUT_S = 5.0
_ERRORS: dict[str, type[AppError]] = {one.__name__: one for one in (Invalid, PayloadTooLarge, UnsupportedImage)}
# The signals by which a faulty file ends the process that decodes it.
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


class UploadProcesses:
    """Child processes that encode images again; each is started when it is needed, and again after it has ended."""

    def __init__(self, num_processes: int, *, command: Sequence[str] = COMMAND) -> None:
        """Describe the processes.

        Args:
            num_processes: Large images that are encoded at once, >= 1; more wait.
            command: Starts a process that answers as `upload_child` does.
        """
        self._processes = [_Process(command) for _ in range(num_processes)]
        self._idle = list(self._processes)
        self._turns = threading.Semaphore(num_processes)

    def reencode(self, data: bytes, *, max_bytes: int, max_pixels: int) -> ReencodedImage:
        """Decode and encode an image as `reencode_image` does, a large one in a process.

        Raises:
            Invalid: As `reencode_image`, or `image_too_slow`: the image has used its processor time.
            PayloadTooLarge, UnsupportedImage: As `reencode_image`.
            Unavailable: The process was ended from outside, or cannot be started.
        """
        if len(data) > max_bytes or not is_large(data):
            return reencode_image(data, max_bytes=max_bytes, max_pixels=max_pixels)
        with self._turns:
            process = self._idle.pop()  # the one that was used last: the others may never be needed
            try:
                return process.call(CALL.pack(max_bytes, max_pixels, len(data)) + data)
            finally:
                self._idle.append(process)

    def close(self) -> None:
        """End the processes, once no call is running. May be called again."""
        for process in self._processes:
            process.close()


class _Process:
    """One child process; used by one thread at a time."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None

    def call(self, call: bytes) -> ReencodedImage:
        child = self._started()
        try:
            _pipe(child.stdin).write(call)
            _pipe(child.stdin).flush()
            text_bytes, file_bytes = OUTCOME.unpack(_read(_pipe(child.stdout), OUTCOME.size))
            facts: dict[str, Any] = json.loads(_read(_pipe(child.stdout), text_bytes))
            file = _read(_pipe(child.stdout), file_bytes)
        except (BrokenPipeError, EOFError):
            raise _error_of_end(self._end(child)) from None
        if "error" in facts:
            raise _ERRORS[facts["error"]](facts["detail"], code=facts["code"])
        return ReencodedImage(data=file, **facts)

    def close(self) -> None:
        if self._child is not None:
            self._end(self._child)

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._child is not None and self._child.poll() is not None:
            self._end(self._child)  # it has ended while it was idle
        if self._child is None:
            try:
                self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            except OSError:
                raise Unavailable("The image cannot be decoded now. Try again.") from None
        return self._child

    def _end(self, child: "subprocess.Popen[bytes]") -> int:
        """End a process, and return its exit status; the next call starts another."""
        self._child = None
        with suppress(BrokenPipeError):
            _pipe(child.stdin).close()
        try:
            status = child.wait(_CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            status = child.wait()
        _pipe(child.stdout).close()
        return status


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without pipes")
    return stream


def _read(stream: IO[bytes], num_bytes: int) -> bytes:
    """Read so many bytes; raises EOFError when there are fewer."""
    data = stream.read(num_bytes)
    if len(data) < num_bytes:
        raise EOFError
    return data


def _error_of_end(status: int) -> AppError:
    """Return what a process's end says about the image that it had."""
    if status == -signal.SIGPROF:
        detail = "The image takes too long to decode. Save it again, or at a smaller size."
        return Invalid(detail, code=ErrorCode.IMAGE_TOO_SLOW)
    if -status in _CRASHES:
        return Invalid("The image file is damaged or cut off.", code=ErrorCode.CORRUPT_IMAGE)
    return Unavailable("The image could not be decoded. Try again.")
