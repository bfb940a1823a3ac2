"""A download that survives everything: into `FILE.part`, which goes on where it was, then renamed.

Beside the part lies the ETag of the bytes in it, in `FILE.part.etag`; the service is asked to go on only
if it still has those very bytes. Runs in the caller's thread.
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
    """The file could not be completed."""


def download_zip(service: Service, path: str, target: Path, on_progress: OnProgress) -> None:
    """Bring an archive to `target`, whose former content stays until the new one is whole.

    Args:
        service: Where it is.
        path: Its path there.
        target: The file to be; `target.part` and `target.part.etag` hold what there is of it.
        on_progress: Told how many bytes are there, and how many there will be.

    Raises:
        Refused: The service answered with a problem.
        Unreachable: It did not answer, or sent nothing more, in time.
        DownloadFailed: Another process writes the same file, or what came is no whole archive.
        OSError: The file cannot be written.
    """
    part = target.with_name(target.name + ".part")
    mark = target.with_name(target.name + ".part.etag")
    with part.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadFailed(f"another process writes {part}") from None
        _complete(service, path, file, mark, on_progress)
        file.flush()
        os.fsync(file.fileno())
        if not _is_whole(part):
            file.truncate(0)
            raise DownloadFailed("what came is no whole archive; it was thrown away, try again")
        part.replace(target)
        mark.unlink(missing_ok=True)


def _complete(service: Service, path: str, file: BinaryIO, mark: Path, on_progress: OnProgress) -> None:
    """Take up the download until every byte is there."""
    delays = service.delays()
    while True:
        try:
            if _take_up(service, path, file, mark, delays, on_progress):
                return
            reason = "the archive broke off"
        except httpx.TransportError as error:
            reason = readable(error) or type(error).__name__
        except Refused as refused:
            if refused.status == 416:
                file.truncate(0)  # more than there is: not its bytes
            elif refused.status not in (502, 503, 504):
                raise
            reason = refused.lines[0]
        service.notify(f"{service.url}: {reason}")
        if not delays.wait():
            raise Unreachable(f"No answer from {service.url}: {reason}")


def _take_up(service: Service, path: str, file: BinaryIO, mark: Path, delays: Delays, on_progress: OnProgress) -> bool:
    """Ask for the bytes that are not there and write them; True if none is missing then."""
    start = file.seek(0, os.SEEK_END)
    etag = mark.read_text() if start and mark.exists() else ""
    headers = {"Accept-Encoding": "identity"}
    if etag and start > 1:  # from one byte before the end, so that a whole file is no range outside of it
        start -= 1
        headers |= {"Range": f"bytes={start}-", "If-Range": etag}
    with service.stream(path, headers) as answer:
        if answer.status_code != 206 or answer.headers.get("etag") != etag:
            if etag:
                service.notify("The archive is another one by now; beginning anew.")
            start = 0
        file.truncate(start)
        if start == 0:
            mark.write_text(answer.headers.get("etag", ""))
        if "content-length" not in answer.headers:
            raise DownloadFailed("the service did not say how long the archive is")
        total = start + int(answer.headers["content-length"])
        first = start
        for piece in answer.iter_raw():
            file.write(piece)
            start += len(piece)
            if start > first + 1:  # the one byte that was there tells nothing
                delays.reset()
            on_progress(start, total)
    file.flush()
    return start == total


def _is_whole(path: Path) -> bool:
    """Tell whether every file in the archive has the checksum that the archive gives it."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError):
        return False
