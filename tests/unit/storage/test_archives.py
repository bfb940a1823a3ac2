"""Archives: read by the standard library, equal bytes, known sizes, any part of them, and never wrong ones whole."""

import io
import os
import tarfile
import time
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from app.errors import Conflict, NotFound
from app.storage.archives import Archive, Member, stored_member, tar_archive, text_member, zip_archive
from app.storage.layout import DataFolder

KINDS = pytest.mark.parametrize("make", [zip_archive, tar_archive])
TEXT = [f"line {k} – ü\n" for k in range(5_000)]


@pytest.fixture
def folder(tmp_path: Path) -> DataFolder:
    return DataFolder(tmp_path)


def members_of(folder: DataFolder) -> list[Member]:
    members = []
    for name, data in (("a/1.png", b"x" * 700_001), ("a/2.png", b""), ("b.txt", b"\0" * 512)):
        folder.write(f"datasets/d/{name}", data)
        path = f"datasets/d/{name}"
        members.append(stored_member(folder, name, path=path, num_bytes=len(data), sha256=sha256(data).hexdigest()))
    return [*members, text_member("z.jsonl", TEXT)]


def whole(archive: Archive) -> bytes:
    return b"".join(archive.parts)


def contents(archive: Archive) -> dict[str, bytes]:
    data = io.BytesIO(whole(archive))
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(data) as unzipped:
            assert unzipped.testzip() is None
            return {name: unzipped.read(name) for name in unzipped.namelist()}
    with tarfile.open(fileobj=data) as untarred:
        return {info.name: untarred.extractfile(info).read() for info in untarred}  # type: ignore[union-attr]


@KINDS
def test_the_standard_library_reads_what_went_in(folder: DataFolder, make) -> None:
    read = contents(make("d", members_of(folder)))
    expected = {"a/1.png": b"x" * 700_001, "a/2.png": b"", "b.txt": b"\0" * 512, "z.jsonl": "".join(TEXT).encode()}
    assert read == expected
    assert list(read) == list(expected)
    assert contents(make("none", [])) == {}


@KINDS
def test_the_size_is_known_and_the_bytes_say_nothing_of_time_and_host(
    folder: DataFolder, make, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make("d", members_of(folder))
    data = whole(archive)
    assert len(data) == archive.num_bytes
    for path in folder.dataset_folder("d").rglob("*.*"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    again = make("d", [*members_of(folder)[:3], text_member("z.jsonl", TEXT)])
    assert (again.tag, whole(again)) == (archive.tag, data)
    monkeypatch.undo()
    time.tzset()
    assert make("d", members_of(folder)[:3]).tag != archive.tag


@KINDS
@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 700_200), (699_999, 700_400), (262_143, 262_145), (-11, 0)])
def test_any_part_is_that_part_of_the_whole(folder: DataFolder, make, start: int, stop: int) -> None:
    members = members_of(folder)
    data = whole(make("d", members))
    first, last = (len(data) + start, len(data)) if start < 0 else (start, stop)
    assert b"".join(make("d", members).cut(first, last)) == data[first:last]


@KINDS
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda path: path.unlink(), NotFound),
        (lambda path: path.write_bytes(b"y" * 700_001), Conflict),
        (lambda path: path.write_bytes(b"x" * 700_000), Conflict),
        (lambda path: path.write_bytes(b"x" * 900_000), Conflict),
    ],
)
def test_a_file_that_is_gone_or_changed_ends_the_stream_early(folder: DataFolder, make, change, error) -> None:
    archive = make("d", members_of(folder))
    change(folder.dataset_folder("d") / "a" / "1.png")
    sent: list[bytes] = []
    with pytest.raises(error):
        sent.extend(archive.parts)
    assert sum(map(len, sent)) < archive.num_bytes


@pytest.mark.slow("writes an archive of more than 65,535 files")
def test_more_files_than_a_plain_zip_counts(folder: DataFolder) -> None:
    folder.write("one", b"1")
    digest = sha256(b"1").hexdigest()
    members = [stored_member(folder, f"{k:06d}", path="one", num_bytes=1, sha256=digest) for k in range(65_600)]
    archive = zip_archive("d", members)
    data = whole(archive)
    assert len(data) == archive.num_bytes
    assert len(zipfile.ZipFile(io.BytesIO(data)).namelist()) == 65_600
