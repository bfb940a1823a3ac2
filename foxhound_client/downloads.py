"""Resumable download: writes to `FILE.part`, then renames it to `FILE`.

`FILE.part.etag` holds the ETag of the bytes in `FILE.part`. A download resumes only if the service still has content
with that ETag; otherwise it restarts. `FILE.etag` holds the ETag of a complete `FILE`, if the caller wants to keep the
file while the service's is the same. Files are written by the thread that runs the flow.
"""

import importlib
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from foxhound_client.errors import DownloadFailed, refusal
from foxhound_client.sending import Policy, seconds, send, unreachable
from foxhound_client.steps import Answer, Close, Flow, Open, Read, Request, Sleep

# Windows has none; there, two processes must not write the same file.
_fcntl: Any = importlib.import_module("fcntl") if os.name == "posix" else None

OnProgress = Callable[[int, int, str], None]


def download(
    policy: Policy,
    path: str,
    target: str | os.PathLike[str],
    on_progress: OnProgress | None,
    query: Mapping[str, str] | None = None,
    *,
    only_if_changed: bool = False,
) -> Flow[Path]:
    """Download to `target`; an existing file is replaced once the new one is complete. Return its path.

    Args:
        policy: How long to retry.
        path: The file's path in the API.
        target: The file to write; `target.part` and `target.part.etag` hold an incomplete download.
        on_progress: Called with the number of bytes downloaded so far, in total, and the unit `bytes`.
        query: Query parameters.
        only_if_changed: Keep an existing file if the service still has the same; `target.etag` says which that is.

    Raises:
        FoxhoundError: The service answered with a problem, or did not answer for longer than the retry time.
        DownloadFailed: Another process writes the same file, or the received file is damaged.
        OSError: The file cannot be written.
    """
    target = Path(target)
    part, known = (target.with_name(target.name + suffix) for suffix in (".part", ".etag"))
    if only_if_changed and target.exists() and known.exists():
        headers = {"If-None-Match": known.read_text()}
        answer = yield from send(policy, Request("HEAD", path, query=query or {}, headers=headers))
        if answer.status == 304:
            return target
    with part.open("a+b") as file:
        _lock(file, part)
        loading = _Loading(policy, Request("GET", path, query=query or {}), file, part, on_progress)
        yield from loading.complete()
        file.flush()
        os.fsync(file.fileno())
        if target.suffix == ".zip" and not _is_whole(part):
            file.truncate(0)
            raise DownloadFailed("The received archive is damaged and was discarded. Try again.")
        part.replace(target)
        if only_if_changed:
            loading.mark.replace(known)
        else:
            loading.mark.unlink(missing_ok=True)
    return target


class _Loading:
    """One download until every byte is there."""

    def __init__(
        self, policy: Policy, request: Request, file: BinaryIO, part: Path, on_progress: OnProgress | None
    ) -> None:
        self.mark = part.with_name(part.name + ".etag")
        self._policy = policy
        self._request = request
        self._file = file
        self._on_progress = on_progress or (lambda *_: None)
        self._delays = policy.delays()

    def complete(self) -> Flow[None]:
        """Resume the download until every byte is there."""
        while True:
            try:
                if (answer := (yield from self._resume())) is None:
                    return
            except httpx.TransportError as error:
                failure: Exception = unreachable(self._policy, error)
                if not self._policy.has_answered:
                    self._delays.limit(self._policy.first_answer_s)
            else:
                failure = yield from self._refused(answer)
            delay_s = self._delays.next()
            if delay_s is None:
                raise failure
            self._policy.on_retry(f"{failure} Trying again in {delay_s:g} s.")
            yield Sleep(delay_s)

    def _refused(self, answer: Answer) -> Flow[Exception]:
        """Return why the answer is not the file, if another try may help; wait as long as the service asks for.

        Raises:
            FoxhoundError: Another try does not help.
        """
        failure = refusal(answer.status, answer.reason, answer.content)
        if answer.status == 416:
            self._file.truncate(0)  # the part is longer than the file, so it holds other bytes
        elif answer.status not in (429, 502, 503, 504):
            raise failure
        if retry_after_s := seconds(answer.headers.get("retry-after", "")):
            if (delay_s := self._delays.next(retry_after_s)) is None:
                raise failure
            yield Sleep(delay_s)
        return failure

    def _resume(self) -> Flow[Answer | None]:
        """Request the missing bytes and append them; return the answer if it is an error, None if all are there.

        Raises:
            httpx.TransportError: The connection failed or ended early.
            DownloadFailed: The service did not send the file's length.
        """
        start = self._file.seek(0, os.SEEK_END)
        etag = self.mark.read_text() if start and self.mark.exists() else ""
        headers = {"Accept-Encoding": "identity"}
        if etag and start > 1:  # from one byte before the end: a range that starts at the end would get 416
            start -= 1
            headers |= {"Range": f"bytes={start}-", "If-Range": etag}
        answer: Answer = yield Open(Request("GET", self._request.path, query=self._request.query, headers=headers))
        try:
            self._policy.has_answered = True
            self._delays.limit(self._policy.retry_for_s)
            if answer.status >= 300:
                return answer
            yield from self._append(answer, start, etag)
            return None
        finally:
            yield Close()

    def _append(self, answer: Answer, start: int, etag: str) -> Flow[None]:
        if answer.status != 206 or answer.headers.get("etag") != etag:
            if etag:
                self._policy.on_retry("The file has changed. The download restarts.")
            start = 0
        self._file.truncate(start)
        if start == 0:
            self.mark.write_text(answer.headers.get("etag", ""))
        if "content-length" not in answer.headers:
            raise DownloadFailed("The service did not send the length of the file.")
        first, total = start, start + int(answer.headers["content-length"])
        while piece := (yield Read()):
            self._file.write(piece)
            start += len(piece)
            if start > first + 1:  # the byte that was there already is not progress
                self._delays.reset()
            self._on_progress(start, total, "bytes")
        self._file.flush()
        if start != total:
            raise httpx.ReadError("the connection ended before the file did")


def _lock(file: BinaryIO, part: Path) -> None:
    if _fcntl is None:
        return
    try:
        _fcntl.flock(file, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
    except BlockingIOError:
        raise DownloadFailed(f"Another process writes {part}.") from None


def _is_whole(path: Path) -> bool:
    """Return whether every file in the archive matches its checksum."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError):
        return False
