"""A file that is deleted while it is sent arrives whole; one that was deleted before is 404."""

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from app.api.responses import file_response
from app.errors import NotFound
from app.services.images.service import StoredFile

DATA = bytes(range(256)) * 1_000


@pytest.fixture
def stored(tmp_path: Path) -> StoredFile:
    (tmp_path / "a.png").write_bytes(DATA)
    return StoredFile(tmp_path / "a.png", "image/png", "0" * 64, "a.png")


def answer(stored: StoredFile, *, delete_at: str, asked: str | None = None) -> list[MutableMapping[str, Any]]:
    """Answer a request, delete the file before the first message of the type `delete_at`, and return all messages."""
    messages: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == delete_at:
            stored.path.unlink(missing_ok=True)
        messages.append(message)

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    headers = [(b"range", asked.encode())] if asked else []
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    asyncio.run(file_response(stored)(scope, receive, send))
    return messages


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [(None, 200, DATA), ("bytes=1000-100999", 206, DATA[1_000:101_000]), ("bytes=-5", 206, DATA[-5:])],
)
@pytest.mark.parametrize("delete_at", ["http.response.start", "http.response.body"])
def test_what_has_begun_is_sent_to_its_end(
    stored: StoredFile, delete_at: str, asked: str | None, status: int, expected: bytes
) -> None:
    start, *bodies = answer(stored, delete_at=delete_at, asked=asked)
    assert start["status"] == status
    assert dict(start["headers"])[b"content-length"] == str(len(expected)).encode()
    assert b"".join(message["body"] for message in bodies) == expected
    assert not stored.path.exists()


def test_what_is_gone_before_is_not_found_and_nothing_is_sent(stored: StoredFile) -> None:
    stored.path.unlink()
    with pytest.raises(NotFound):
        answer(stored, delete_at="")
