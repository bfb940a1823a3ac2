"""Resumable download: writes to `FILE.part`, then renames it to `FILE`.

`FILE.part.etag` holds the ETag of the bytes in `FILE.part`. A download resumes only if the service still has content
with that ETag; otherwise it restarts. The module prints nothing and imports nothing of the server. It runs in the
caller's thread.
"""

import fcntl
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import httpx

from app.client.service import Delays, Refused, Service, Unreachable, readable

OnProgress = Callable[[int, int], None]


class DownloadFailed(Exception):
    """The download could not be completed."""


def download_zip(service: Service, path: str, target: Path, on_progress: OnProgress) -> None:
    """Download a zip archive to `target`; an existing file is replaced once the archive is complete.

    Args:
        service: The service.
        path: The archive's path in the API.
        target: The file to write; `target.part` and `target.part.etag` hold an incomplete download.
        on_progress: Called with the number of bytes downloaded so far and in total.

    Raises:
        Refused: The service answered with a problem.
        Unreachable: The service did not answer, or stopped sending, for longer than the retry time.
        DownloadFailed: Another process writes the same file, or the received archive is damaged.
        OSError: The file cannot be written.
    """
    part = target.with_name(target.name + ".part")
    mark = target.with_name(target.name + ".part.etag")
    with part.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadFailed(f"Another process writes {part}.") from None
        _complete(service, path, file, mark, on_progress)
        file.flush()
        os.fsync(file.fileno())
        if not _is_whole(part):
            file.truncate(0)
            raise DownloadFailed("The received archive is damaged and was discarded. Try again.")
        part.replace(target)
        mark.unlink(missing_ok=True)


def _complete(service: Service, path: str, file: BinaryIO, mark: Path, on_progress: OnProgress) -> None:
    """Resume the download until every byte is there.

    Raises:
        Refused: The service answered with a problem that a retry does not solve.
        Unreachable: The retry time is spent.
    """
    delays = service.delays()
    while True:
        try:
            if _resume(service, path, file, mark, delays, on_progress):
                return
            reason = "the connection ended before the archive did"
        except httpx.TransportError as error:
            reason = readable(error) or type(error).__name__
        except Refused as refused:
            if refused.status == 416:
                file.truncate(0)  # the part is longer than the archive, so it holds other bytes
            elif refused.status not in (502, 503, 504):
                raise
            reason = refused.lines[0]
        service.notify(f"{service.url}: {reason}")
        if not delays.wait():
            raise Unreachable(f"No answer from {service.url}: {reason}")


def _resume(service: Service, path: str, file: BinaryIO, mark: Path, delays: Delays, on_progress: OnProgress) -> bool:
    """Request the missing bytes and append them; return whether the file is complete."""
    start = file.seek(0, os.SEEK_END)
    etag = mark.read_text() if start and mark.exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if etag and start > 1:  # from one byte before the end: a range that starts at the end would get 416
        start -= 1
        headers |= {"Range": f"bytes={start}-", "If-Range": etag}
    with service.stream(path, headers) as answer:
        if answer.status_code != 206 or answer.headers.get("etag") != etag:
            if etag:
                service.notify("The archive has changed. The download restarts.")
            start = 0
        file.truncate(start)
        if start == 0:
            mark.write_text(answer.headers.get("etag", ""))
        if "content-length" not in answer.headers:
            raise DownloadFailed("The service did not send the length of the archive.")
        total = start + int(answer.headers["content-length"])
        first = start
        for piece in answer.iter_raw():
            file.write(piece)
            start += len(piece)
            if start > first + 1:  # the byte that was there already is not progress
                delays.reset()
            on_progress(start, total)
    file.flush()
    return start == total


def _is_whole(path: Path) -> bool:
    """Return whether every file in the archive matches its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError):
        return False
