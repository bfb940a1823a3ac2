"""The node itself: alive, ready, capable; and its documentation page."""

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse, Response

from app.api.deps import ServicesDep
from app.api.openapi import problems
from app.api.problems import respond
from app.error_codes import ErrorCode
from app.errors import ModelNotReady
from app.schemas.service import Capabilities, Liveness, Readiness

router = APIRouter(tags=["service"])

STATIC = "/docs/assets"


@router.get("/livez", summary="Is the process alive", responses=problems())
async def get_liveness() -> Liveness:  # async: answers even when every thread is busy
    """Always 200 while the process answers."""
    return Liveness(status="ok")


@router.get("/readyz", summary="Is the node ready", response_model=Readiness, responses=problems(503))
def get_readiness(request: Request, services: ServicesDep) -> Any:
    """200 while every model is loaded, the database answers and the node does not stop; else 503 with the reasons.

    Either way each model's `note` tells what an operator should know, `expected_wait_s` how busy it is.
    """
    models = services.status.models()
    missing = services.status.missing()
    if request.app.state.draining.is_leaving:
        missing.insert(0, "node: it is shutting down")
    if not missing:
        return Readiness(status="ready", models=models)
    error = ModelNotReady("; ".join(missing)[:2_000], code=ErrorCode.NOT_READY, retry_after_s=2)
    return respond(request, error, {"models": {name: state.model_dump() for name, state in models.items()}})


@router.get("/capabilities", summary="What this node can do", responses=problems(503))
def get_capabilities(services: ServicesDep) -> Capabilities:
    """Models and how they serve, device, noise schedulers and the bounds of the running node."""
    return services.status.capabilities()


def install_docs(app: FastAPI) -> None:
    """Serve the documentation page with assets of our own: it works without a network."""
    folder = Path(fastapi_offline.__file__).parent / "static"
    app.mount(STATIC, StaticFiles(directory=folder), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    def show_docs() -> Response:
        page: HTMLResponse = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Foxhound",
            swagger_js_url=f"{STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f"{STATIC}/swagger-ui.css",
            swagger_favicon_url=f"{STATIC}/favicon.png",
        )
        return page
