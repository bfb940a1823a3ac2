"""Streamed archives as answers: a known length, a strong validator, and ranges, so that downloads resume.

An archive is made in the exports' pool, one block at a time; a slow client occupies one block and no thread.
"""

import re
from collections.abc import AsyncIterator, Iterator

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from app.api.responses import not_modified
from app.services.datasets.export import Archive
from app.services.thread_pools import WorkPool

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


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
    }
    if unchanged := not_modified(request, headers):
        return unchanged
    start, stop, status = 0, archive.num_bytes, 200
    if request.headers.get("if-range", etag) == etag and (asked := request.headers.get("range")):
        start, stop, status = _span(asked, archive.num_bytes)
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{archive.num_bytes}"
    headers["Content-Length"] = str(stop - start)
    return StreamingResponse(_blocks(archive.cut(start, stop), pool), status, headers, archive.media_type)


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
