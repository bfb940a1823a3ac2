"""The pages of the console under `/ui`, and their styles, scripts and pictures.

A page is the same for everybody and holds no data: its script reads what it shows from the public API, with the key of
the browser's tab. So the pages are open without a key, and this module imports nothing of the node. Runs on the event
loop; everything is read and rendered once a process, and served from memory.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The template of each path; what follows an object's kind is read by the page's script.
PAGES: Mapping[str, str] = {
    "": "studio",
    "/gallery": "gallery",
    "/images/{id}": "image",
    "/datasets": "datasets",
    "/datasets/{id}": "dataset",
    "/training": "training",
    "/models/{id}": "model",
    "/train-jobs/{id}": "train_job",
    "/compare": "compare",
    "/node": "node",
    "/sign-in": "sign_in",
}

_FOLDER = Path(__file__).parent
_STATIC = _FOLDER / "static"
_MEDIA_TYPES = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}

router = APIRouter(prefix="/ui", include_in_schema=False)


class Asset(NamedTuple):
    """A file as it is served.

    Attributes:
        body: The whole file.
        media_type: Its type.
        etag: The hash of the body, with quotation marks.
    """

    body: bytes
    media_type: str
    etag: str


@cache
def read_assets() -> Mapping[str, Asset]:
    """Return every file of the folder `static` by its path below it."""
    files = sorted(path for path in _STATIC.rglob("*") if path.suffix in _MEDIA_TYPES)
    return {
        path.relative_to(_STATIC).as_posix(): _asset(path.read_bytes(), _MEDIA_TYPES[path.suffix]) for path in files
    }


@cache
def render_page(name: str) -> Asset:
    """Return the page of a template."""
    templates = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return _asset(templates.get_template(f"{name}.html").render(page=name).encode(), "text/html")


def _asset(body: bytes, media_type: str) -> Asset:
    return Asset(body, media_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')


async def _show(request: Request) -> Response:
    page = request.scope["route"].path.removeprefix("/ui")
    return _answer(request, render_page(PAGES[page]))


for _path in PAGES:
    router.add_api_route(_path, _show, methods=["GET"])


@router.get("/")
async def go_to_first_page() -> Response:
    """Redirect to the path without the slash."""
    return RedirectResponse("/ui", 308)


@router.get("/static/{path:path}")
async def get_asset(path: str, request: Request) -> Response:
    """Return a style sheet, a script or a picture."""
    asset = read_assets().get(path)
    if asset is None:
        raise HTTPException(404)
    return _answer(request, asset)


def _answer(request: Request, asset: Asset) -> Response:
    """Return an asset, or 304; browsers ask again each time, so that pages and scripts are of one version."""
    headers = {"ETag": asset.etag, "Cache-Control": "no-cache", "Content-Security-Policy": CONTENT_SECURITY_POLICY}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if asset.etag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)
