"""Stored files as answers: fixed types, strong validators, nothing that a browser could run."""

from fastapi import Request
from starlette.responses import FileResponse, Response

from app.services.images.service import StoredFile


def file_response(stored: StoredFile) -> FileResponse:
    """Return a file whose bytes never change under its id; ranges are served."""
    headers = {
        "ETag": f'"{stored.sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    is_image = stored.media_type.startswith("image/")
    return FileResponse(
        stored.path,
        media_type=stored.media_type,
        headers=headers,
        filename=stored.name,
        content_disposition_type="inline" if is_image else "attachment",
    )


def conditional(request: Request, stored: StoredFile) -> Response:
    """Return the file, or 304 if the client has it already."""
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    response = file_response(stored)
    if f'"{stored.sha256}"' in known or "*" in known:
        kept = {name: response.headers[name] for name in ("etag", "cache-control")}
        return Response(status_code=304, headers=kept)
    return response
