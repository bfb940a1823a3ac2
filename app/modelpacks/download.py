"""Downloads one file: resumable, and renamed to its final name only after its hash was checked.

Uses HTTP and hashes; reads no manifests. Runs in the CLI.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from app.modelpacks.pack import PackError

# File name, bytes so far, bytes in total (None where the server does not send it).
OnProgress = Callable[[str, int, int | None], None]

CHUNK_BYTES = 1024 * 1024

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to download.

    Attributes:
        name: Shown to people.
        size: Bytes; None when unknown before the download.
        hash_kind: SHA-256 of the content, or git's SHA-1 of a blob.
        hash_prefix: The first hexadecimal digits of the hash, or all of them.
    """

    name: str
    url: str
    size: int | None
    hash_kind: Literal["sha256", "git_blob"]
    hash_prefix: str

    def matches(self, path: Path) -> bool:
        """Whether the file on the disk has the size and the hash of this one."""
        if not path.is_file() or self.size not in (None, path.stat().st_size):
            return False
        digest = hashlib.sha256() if self.hash_kind == "sha256" else hashlib.sha1(usedforsecurity=False)
        if self.hash_kind == "git_blob":
            digest.update(b"blob %d\0" % path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        return digest.hexdigest().startswith(self.hash_prefix)


def download(client: httpx.Client, file: RemoteFile, target: Path, on_progress: OnProgress) -> None:
    """Download a file, unless it exists; continues where an earlier attempt stopped.

    The bytes received so far are kept beside the target as `.part`.

    Raises:
        PackError: The server could not be reached, closed the connection early, answered with an error, or sent a file
            with another hash.
    """
    if file.matches(target):
        on_progress(file.name, target.stat().st_size, file.size)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if not file.matches(part):
        try:
            _receive(client, file, part, on_progress)
        except httpx.HTTPError as error:
            raise PackError(f"The download of {file.name} stopped; repeat the command to continue.") from error
        if not file.matches(part):
            part.unlink(missing_ok=True)
            raise PackError(f"{file.name} is not the file that was pinned and was deleted. Repeat the command.")
    os.replace(part, target)


def _receive(client: httpx.Client, file: RemoteFile, part: Path, on_progress: OnProgress) -> None:
    """Append the missing bytes to the `.part` file, or overwrite it where the server does not resume."""
    done = part.stat().st_size if part.exists() else 0
    # identity: a range of a compressed response would be a range of other bytes
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with client.stream("GET", file.url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # `.part` is longer than the file; the hash check follows
        if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise PackError(f"The server of {file.name} answered {response.status_code}; repeat the command later.")
        if response.status_code == httpx.codes.OK:
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else file.size
        with part.open("ab" if done else "wb") as out:
            for chunk in response.iter_raw():  # unbuffered: every received byte is kept
                out.write(chunk)
                done += len(chunk)
                on_progress(file.name, done, total)
