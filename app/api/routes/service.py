"""Routes of the node: liveness, readiness, capabilities, documentation page. Imports no engine."""

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
from app.schemas.response_docs import problem
from app.schemas.service import Capabilities, Liveness, Readiness

router = APIRouter(tags=["service"])

STATIC = "/docs/assets"


@router.get(
    "/livez",
    summary="Check that the process is alive",
    response_description="The process is alive.",
    responses=problems(400),
)
async def get_liveness() -> Liveness:  # async: answers even when every thread is busy
    """Return 200 while the process runs."""
    return Liveness(status="ok")


@router.get(
    "/readyz",
    summary="Check that the node is ready",
    response_model=Readiness,
    response_description="The node is ready.",
    responses={**problems(400), 503: problem(503, "NotReady")},
)
def get_readiness(request: Request, services: ServicesDep) -> Any:
    """Return 200 if every model is loaded, the database answers and no shutdown has begun; else 503 with the reasons.

    In both cases, each model's `note` is a hint for the operator and `expected_wait_s` its estimated waiting time.
    """
    models = services.status.models()
    missing = services.status.missing()
    if request.app.state.draining.is_leaving:
        missing.insert(0, "node: it is shutting down")
    if not missing:
        return Readiness(status="ready", models=models)
    error = ModelNotReady("; ".join(missing)[:2_000], code=ErrorCode.NOT_READY, retry_after_s=2)
    return respond(request, error, {"models": {name: state.model_dump() for name, state in models.items()}})


@router.get(
    "/capabilities",
    summary="Read the node's capabilities",
    response_description="The capabilities.",
    responses=problems(400, 503),
)
def get_capabilities(services: ServicesDep) -> Capabilities:
    """Return the models, the device, the noise schedulers and the limits of the running node."""
    return services.status.capabilities()


def install_docs(app: FastAPI) -> None:
    """Install the documentation page with local assets, so that it works without a network."""
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
