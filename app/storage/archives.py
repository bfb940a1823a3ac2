"""Zip and tar archives of stored files as streams; equal members give equal bytes.

Archives contain no current time and no host name: the caller sorts the names, times are fixed, nothing is compressed.
Each stored file is verified against its size and hash while it is read. A missing or changed file ends the stream
early, so that a wrong archive never looks complete. Imports no database models and no HTTP framework. A stream runs on
the thread that requests its next part, and holds one block of one file in memory.
"""

import hashlib
import heapq
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from zipfile import ZIP_STORED

from zipstream import ZipStream, ZipStreamInfo

from app.error_codes import ErrorCode
from app.errors import Conflict
from app.storage.layout import DataFolder

BLOCK_BYTES = 256 * 1024
_FILE_MODE = 0o644
# The earliest time that a zip can hold.
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_TAR_RECORD_BYTES = 10_240


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive; its content is read when the stream reaches it.

    Attributes:
        name: Relative path in the archive, with `/`.
        num_bytes: Size in bytes.
        sha256: Hash of the content, hexadecimal.
        read: Returns the content in parts; may be called repeatedly.
        path: Path in the data folder of a stored file; None for a text.
    """

    name: str
    num_bytes: int
    sha256: str
    read: Callable[[], Iterator[bytes]]
    path: str | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Read the content from its start."""
        return self.read()


@dataclass(frozen=True, slots=True)
class Archive:
    """A whole archive, to be streamed once.

    Attributes:
        name: Suggested file name.
        media_type: Media type of the archive.
        num_bytes: Size in bytes, known before the stream starts.
        tag: Hash over everything that determines the bytes: equal tags, equal bytes.
        parts: The bytes.
    """

    name: str
    media_type: str
    num_bytes: int
    tag: str
    parts: Iterator[bytes]

    def cut(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes `start` <= position < `stop`; the blocks before are produced and yielded as empty blocks."""
        position = 0
        for part in self.parts:
            wanted = part[max(start - position, 0) : max(stop - position, 0)]
            position += len(part)
            yield wanted
            if position >= stop:
                return


class Listing:
    """The members of an archive sorted by name; may be iterated repeatedly; a stored file takes about 100 bytes."""

    def __init__(self, folder: DataFolder, root: str) -> None:
        """Begin empty; a stored file `name` has the path `root/name` in the data folder."""
        self._folder = folder
        self._root = root
        self._files: list[bytes] = []
        self._texts: list[Member] = []

    def add_stored(self, name: str, num_bytes: int, sha256: str) -> None:
        """Add a file of the data folder; `num_bytes` and `sha256` are the expected size and hash."""
        # NUL sorts before every other character, so that the packed entries sort like their names.
        self._files.append(name.encode() + b"\0" + bytes.fromhex(sha256) + num_bytes.to_bytes(8, "big"))

    def add_text(self, member: Member) -> None:
        """Add a text member; one of 0 bytes is skipped."""
        if member.num_bytes:
            self._texts.append(member)

    def __iter__(self) -> Iterator[Member]:
        """Yield every member, sorted by name."""
        self._files.sort()
        texts = sorted(self._texts, key=_name_of)
        return heapq.merge(map(self._stored, self._files), texts, key=_name_of)

    def _stored(self, packed: bytes) -> Member:
        name = packed[:-41].decode()
        sha256, num_bytes = packed[-40:-8].hex(), int.from_bytes(packed[-8:], "big")
        return stored_member(self._folder, name, path=f"{self._root}/{name}", num_bytes=num_bytes, sha256=sha256)


def _name_of(member: Member) -> str:
    return member.name


def stored_member(folder: DataFolder, name: str, *, path: str, num_bytes: int, sha256: str) -> Member:
    """Return a member for a file of the data folder; `num_bytes` and `sha256` are the expected size and hash."""
    return Member(name, num_bytes, sha256, partial(_read_checked, folder, path, num_bytes, sha256), path)


def text_member(name: str, lines: Iterable[str]) -> Member:
    """Return a member for a text of lines; it is compressed in memory, so that 100,000 lines take a few megabytes."""
    digest, packer, num_bytes = hashlib.sha256(), zlib.compressobj(1), 0
    packed = bytearray()
    for line in lines:
        data = line.encode()
        digest.update(data)
        num_bytes += len(data)
        packed += packer.compress(data)
    packed += packer.flush()
    return Member(name, num_bytes, digest.hexdigest(), partial(_unpacked, bytes(packed)))


def zip_archive(name: str, members: Iterable[Member]) -> Archive:
    """Return a zip of uncompressed members; with more than 65,535 files or 4 GiB it is a Zip64.

    Args:
        name: File name without its extension.
        members: The members in their order in the archive, with unique names; iterated several times.
    """
    stream = _TimelessZip(members)
    return Archive(f"{name}.zip", "application/zip", len(stream), _tag("zip", members), _blocks(stream))


def tar_archive(name: str, members: Sequence[Member]) -> Archive:
    """Return a tar (ustar) of members; their names have at most 100 characters.

    Args:
        name: File name without its extension.
        members: The members in their order in the archive, with unique names.
    """
    content = sum(512 + member.num_bytes + -member.num_bytes % 512 for member in members) + 1024
    num_bytes = content + -content % _TAR_RECORD_BYTES
    parts = _blocks(_tar_parts(members, num_bytes - content + 1024))
    return Archive(f"{name}.tar", "application/x-tar", num_bytes, _tag("tar", members), parts)


class _TimelessZip(ZipStream):  # type: ignore[misc]  # the library is untyped
    """A ZipStream with a fixed time and host in each entry, which takes little memory.

    zipstream-ng (1.9) gives every entry the current local time without an option, queues all entries and keeps those
    sent, at least 1 kB each. This class replaces the private methods that do so; hence the narrow version range in
    pyproject.toml.
    """

    def __init__(self, members: Iterable[Member]) -> None:
        super().__init__(sized=True)
        self._members = members
        self._filelist = _Directory()
        for member in members:
            self._add_size_from_file(member.name, member.num_bytes)

    def all_files(self) -> Iterator[bytes]:
        """Yield the entries of all members; each is created when the stream reaches it."""
        for member in self._members:
            info = ZipStreamInfo(member.name, _ZIP_TIME)
            info.external_attr = (0o100000 | _FILE_MODE) << 16
            info.create_system = 3  # Unix on every platform, as the file mode requires
            info.compress_type = ZIP_STORED
            info.file_size = member.num_bytes
            info.header_offset = self._pos
            for part in info._file_data(member):
                yield self._track(part)
            if info.file_size != member.num_bytes:
                raise _changed()
            self._filelist.append(info)


@dataclass(frozen=True, slots=True)
class _Headers:
    """The directory headers of many entries; ZipStream treats them as those of one entry."""

    packed: bytearray

    def _central_directory_header_data(self) -> bytes:
        return bytes(self.packed)


class _Directory:
    """The central directory of the entries sent so far, as bytes: about 100 for each entry.

    The library uses it as its list of entries; iteration yields blocks of many entries.
    """

    def __init__(self) -> None:
        self._blocks = [_Headers(bytearray())]
        self._num_entries = 0

    def append(self, info: Any) -> None:
        if len(self._blocks[-1].packed) >= BLOCK_BYTES:
            self._blocks.append(_Headers(bytearray()))
        self._blocks[-1].packed.extend(info._central_directory_header_data())
        self._num_entries += 1

    def __len__(self) -> int:
        return self._num_entries

    def __iter__(self) -> Iterator[_Headers]:
        return iter(self._blocks)


def _tar_parts(members: Sequence[Member], num_end_bytes: int) -> Iterator[bytes]:
    for member in members:
        info = tarfile.TarInfo(member.name)
        info.size, info.mode = member.num_bytes, _FILE_MODE
        yield info.tobuf(tarfile.USTAR_FORMAT)
        yield from member
        yield bytes(-member.num_bytes % 512)
    yield bytes(num_end_bytes)


def _tag(kind: str, members: Iterable[Member]) -> str:
    digest = hashlib.sha256(f"foxhound {kind} 1\n".encode())
    for member in members:
        digest.update(f"{member.name}\0{member.num_bytes}\0{member.sha256}\n".encode())
    return digest.hexdigest()


def _read_checked(folder: DataFolder, path: str, num_bytes: int, sha256: str) -> Iterator[bytes]:
    digest, num_read = hashlib.sha256(), 0
    with folder.open(path) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            num_read += len(block)
            if num_read > num_bytes:
                raise _changed()
            yield block
    if num_read != num_bytes or digest.hexdigest() != sha256:
        raise _changed()


def _changed() -> Conflict:
    return Conflict("A stored file does not match its record. Repair the dataset.", code=ErrorCode.FILE_CHANGED)


def _unpacked(packed: bytes) -> Iterator[bytes]:
    unpacker = zlib.decompressobj()
    while block := unpacker.decompress(packed, BLOCK_BYTES):
        packed = unpacker.unconsumed_tail
        yield block


def _blocks(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join small parts into blocks, so that a server does not send each header separately."""
    joined = bytearray()
    for part in parts:
        joined += part
        if len(joined) >= BLOCK_BYTES:
            yield bytes(joined)
            joined.clear()
    if joined:
        yield bytes(joined)
