"""Stored files as answers: fixed types, strong validators, and nothing that a browser could run.

Imports no storage: services say where a file is or hand over its bytes. Any thread may make an answer.
"""

from collections.abc import Mapping
from datetime import datetime
from email.utils import format_datetime

from fastapi import Request
from starlette.responses import FileResponse, Response

from app.services.images.service import StoredFile


def file_response(stored: StoredFile) -> FileResponse:
    """Return a file whose bytes never change under its id; ranges are served."""
    is_image = stored.media_type.startswith("image/")
    return FileResponse(
        stored.path,
        media_type=stored.media_type,
        headers=_headers(stored.sha256),
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


def conditional(request: Request, stored: StoredFile) -> Response:
    """Return the file, or 304 if the client has it already."""
    return not_modified(request, _headers(stored.sha256)) or file_response(stored)


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


def _headers(sha256: str) -> dict[str, str]:
    return {
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
