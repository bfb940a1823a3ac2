"""One file from a server onto the disk: resumable, and never under its name before its hash was checked.

Knows HTTP and hashes, nothing of packs.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

from app.modelpacks.pack import PackError

# File, bytes so far, bytes in all (None where the server does not say).
OnProgress = Callable[[str, int, int | None], None]

CHUNK_BYTES = 1024 * 1024

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file to get.

    Attributes:
        name: For people.
        size: Bytes; None when the source does not say beforehand.
        hash_kind: SHA-256 of the content, or git's SHA-1 of a blob.
        hash_prefix: The first hexadecimal digits of it, all of them where they are known.
    """

    name: str
    url: str
    size: int | None
    hash_kind: Literal["sha256", "git_blob"]
    hash_prefix: str

    def matches(self, path: Path) -> bool:
        """Whether the file on the disk is this one."""
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
    """Get a file, unless it is there already; goes on where an earlier attempt stopped.

    What has arrived is kept beside the target as `.part`.

    Raises:
        PackError: The server could not be reached, stopped half-way, refused, or sent another file.
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
            raise PackError(f"The download of {file.name} stopped; repeat the command to go on.") from error
        if not file.matches(part):
            part.unlink(missing_ok=True)
            raise PackError(f"{file.name} is not the file that was pinned; it was thrown away. Repeat the command.")
    os.replace(part, target)


def _receive(client: httpx.Client, file: RemoteFile, part: Path, on_progress: OnProgress) -> None:
    """Append what is missing to the `.part` file, or write it anew where the server does not resume."""
    done = part.stat().st_size if part.exists() else 0
    # identity: a range of a compressed answer would be a range of other bytes
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
    with client.stream("GET", file.url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S) as response:
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # more is there than the file has; the hash will tell
        if response.status_code not in (httpx.codes.OK, httpx.codes.PARTIAL_CONTENT):
            raise PackError(f"The server of {file.name} answered {response.status_code}; repeat the command later.")
        if response.status_code == httpx.codes.OK:
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else file.size
        with part.open("ab" if done else "wb") as out:
            for chunk in response.iter_raw():  # as it comes: what has arrived is never lost
                out.write(chunk)
                done += len(chunk)
                on_progress(file.name, done, total)
