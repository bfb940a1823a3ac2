"""Responses that are files: the accepted media type, stored files, images in memory, streamed archives.

Stored files have fixed types, strong validators and nothing that a browser could run. An archive has a known length, a
strong validator and ranges, so that downloads resume. Imports no storage: services return a path, bytes or an archive.
Any thread may build a response; the blocks of an archive are made in the exports' pool.
"""

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime
from email.utils import format_datetime

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.errors import NotAcceptable, NotFound
from app.schemas.response_docs import BYTES
from app.services.datasets.exports.service import Archive
from app.services.images.service import StoredFile
from app.services.process.thread_pools import WorkPool

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")

_IN_BYTES = re.compile(rb"\s*bytes\s*=", re.IGNORECASE)

FOREVER = "private, max-age=31536000, immutable"


class StoredFileResponse(FileResponse):
    """A file that is opened before the head of the answer is sent, so that a deletion meanwhile does not cut it off.

    `FileResponse` opens it by its path after the head.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer.

        Raises:
            NotFound: The file was deleted after its path was looked up; nothing is sent.
        """
        try:
            file = await asyncio.to_thread(open, self.path, "rb")
        except FileNotFoundError:
            raise NotFound("This was deleted while the request was answered.") from None
        with file:
            self.stat_result = os.fstat(file.fileno())
            self.set_stat_headers(self.stat_result)
            self.path = f"/dev/fd/{file.fileno()}"  # opens the same file, whether it still has a name or not
            await super().__call__(_with_known_range(scope), receive, send)


def select_media_type(accept: str, answers: Mapping[str, str]) -> str:
    """Return the media type of the response: the first accepted one that is available; weights (`q`) are ignored.

    Args:
        accept: The `Accept` header; empty or `*/*` if the request has none.
        answers: The available media type for each accepted media type or wildcard.

    Raises:
        NotAcceptable: No accepted media type is available.
    """
    for part in accept.split(","):
        media_type = part.split(";")[0].strip().lower()
        if media_type in answers:
            return answers[media_type]
    raise NotAcceptable(f"This route answers {', '.join(dict.fromkeys(answers.values()))}.")


def bytes_type(request: Request, media_type: str) -> str:
    """Return the type that a file is sent under: its own, or `application/octet-stream` where `Accept` prefers that."""
    own = {media_type, f"{media_type.split('/')[0]}/*", "*/*"}
    for part in request.headers.get("accept", "").split(","):
        asked = part.split(";")[0].strip().lower()
        if asked == BYTES or asked in own:
            return BYTES if asked == BYTES else media_type
    return media_type


def file_response(stored: StoredFile, cache_control: str = FOREVER, *, media_type: str | None = None) -> FileResponse:
    """Return a file; ranges are served. By default its bytes never change under its id."""
    is_image = stored.media_type.startswith("image/")
    return StoredFileResponse(
        stored.path,
        media_type=media_type or stored.media_type,
        headers=_headers(stored.sha256, cache_control),
        filename=stored.name,
        content_disposition_type="inline" if is_image else "attachment",
    )


def image_response(data: bytes, media_type: str, *, sha256: str, name: str, created_at: datetime) -> Response:
    """Return an image in memory, with the headers that its stored file is served with.

    Args:
        data: The whole file.
        media_type: Of the file.
        sha256: Of the file, in hex.
        name: The file's name, of ASCII letters, digits, hyphens and dots.
        created_at: Of its record, in UTC; its file is written less than a moment before.
    """
    headers = {
        **_headers(sha256),
        "Accept-Ranges": "bytes",
        "Content-Disposition": f'inline; filename="{name}"',
        "Last-Modified": format_datetime(created_at, usegmt=True),
    }
    return Response(data, headers=headers, media_type=media_type)


def conditional(request: Request, stored: StoredFile, cache_control: str = FOREVER) -> Response:
    """Return the file, or 304 if the client has it already."""
    headers = _headers(stored.sha256, cache_control)
    media_type = bytes_type(request, stored.media_type)
    return not_modified(request, headers) or file_response(stored, cache_control, media_type=media_type)


def small_copy_headers(tag: str) -> dict[str, str]:
    """Return the headers of a small copy of an image; `tag` is the text of its entity tag."""
    return _headers(tag)


def not_modified(request: Request, headers: Mapping[str, str]) -> Response | None:
    """Return 304 if `If-None-Match` names the entity tag that an answer would have; None if it does not.

    Args:
        request: Of the client.
        headers: Of the answer; `ETag` and `Cache-Control` are sent with the 304.

    Source:
        RFC 9110 section 13.1.2: tags are compared weakly, and `*` matches every one.
    """
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if headers["ETag"] not in known and "*" not in known:
        return None
    return Response(status_code=304, headers={name: headers[name] for name in ("ETag", "Cache-Control")})


def archive_response(request: Request, archive: Archive, pool: WorkPool) -> Response:
    """Return the archive, the part of it that was asked for, or 304 if the client has it already.

    One range is served; several, or one that cannot be read, give the whole (RFC 9110 section 14.2 allows it).

    Raises:
        HTTPException: 416: the range lies outside the archive.
    """
    etag = f'"{archive.tag}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{archive.name}"',
        "Vary": "Accept",
    }
    if unchanged := not_modified(request, headers):
        return unchanged
    start, stop, status = 0, archive.num_bytes, 200
    if request.headers.get("if-range", etag) == etag and (asked := request.headers.get("range")):
        start, stop, status = _span(asked, archive.num_bytes)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{archive.num_bytes}"
    headers["Content-Length"] = str(stop - start)
    media_type = bytes_type(request, archive.media_type)
    return StreamingResponse(_blocks(archive.cut(start, stop), pool), status, headers, media_type)


def _with_known_range(scope: Scope) -> Scope:
    """Return a request without a `Range` of another unit than bytes, which is ignored (RFC 9110 section 14.2).

    `FileResponse` would answer it with 400.
    """
    kept = [(name, value) for name, value in scope["headers"] if name != b"range" or _IN_BYTES.match(value)]
    return {**scope, "headers": kept}


def _headers(sha256: str, cache_control: str = FOREVER) -> dict[str, str]:
    return {
        "ETag": f'"{sha256}"',
        "Cache-Control": cache_control,
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Vary": "Accept",
    }


async def _blocks(blocks: Iterator[bytes], pool: WorkPool) -> AsyncIterator[bytes]:
    """Make block after block in the pool, so that downloads take turns, also while one skips to a far range."""
    while (block := await pool.run(lambda: next(blocks, None))) is not None:
        if block:
            yield block


def _span(asked: str, num_bytes: int) -> tuple[int, int, int]:
    """Return the offset of the first byte, the offset after the last, and the status."""
    match = _RANGE.fullmatch(asked.strip())
    if match is None:
        return 0, num_bytes, 200
    first, last, suffix = match.groups()
    if suffix is not None:
        start, stop = max(num_bytes - int(suffix), 0), num_bytes
    else:
        start, stop = int(first), min(int(last) + 1, num_bytes) if last else num_bytes
        if last and int(last) < start:
            return 0, num_bytes, 200
    if start >= num_bytes:
        raise HTTPException(416, headers={"Content-Range": f"bytes */{num_bytes}"})
    return start, stop, 206
