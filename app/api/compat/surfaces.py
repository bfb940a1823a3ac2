"""The surfaces by name: their routers, and the paths at which their form of errors begins."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fastapi import APIRouter, FastAPI

from app.api.access.scopes import require_listed
from app.api.compat import document
from app.api.compat.a1111 import img2img, interrogate, node, txt2img
from app.api.compat.a1111.checkpoints import Checkpoints
from app.api.compat.a1111.drawings import DrawingBook
from app.api.compat.huggingface import classification, endpoint, image_to_image, text_to_image
from app.api.compat.openai import edits, embeddings, images, models


class Surface(NamedTuple):
    """The routes for the clients of one other service."""

    prefix: str
    routers: tuple[APIRouter, ...]


SURFACES: Mapping[str, Surface] = {
    "openai": Surface("/v1/", (images.router, edits.router, models.router, embeddings.router)),
    "a1111": Surface("/sdapi/v1/", (txt2img.router, img2img.router, interrogate.router, node.router)),
    "huggingface": Surface(
        "/hf/", (text_to_image.router, image_to_image.router, classification.router, endpoint.router)
    ),
}


def routers_of(names: Iterable[str]) -> list[APIRouter]:
    """Return the routers of surfaces."""
    return [router for name in names for router in SURFACES[name].routers]


def prefixes_of(names: Iterable[str]) -> frozenset[str]:
    """Return the beginnings of the paths of surfaces."""
    return frozenset(SURFACES[name].prefix for name in names)


def install(app: FastAPI, names: Iterable[str]) -> None:
    """Add surfaces to an application; their routes are in `/openapi.compat.json` and not in `/openapi.json`."""
    routers = routers_of(names)
    for router in routers:
        require_listed(router.routes)
        app.include_router(router, include_in_schema=False)
    app.state.drawings = DrawingBook()
    app.state.checkpoints = Checkpoints()
    document.install(app, routers)
