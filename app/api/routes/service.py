"""Routes of the node: liveness, readiness, capabilities, documentation page. Imports no engine."""

from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import APIRouter, FastAPI, Request
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from app.api.deps import ServicesDep
from app.api.openapi import problems
from app.api.problems import respond
from app.error_codes import ErrorCode
from app.errors import ModelNotReady
from app.metrics.node import CONTENT_TYPE, NodeMetrics
from app.schemas.response_docs import problem
from app.schemas.service import Capabilities, Liveness, Readiness

router = APIRouter(tags=["service"])

_STATIC = "/docs/assets"
_PAGE = Path(__file__).parent / "assets"
# Swagger UI sets style attributes, draws icons from data URLs, shows answers that are images from blobs, and sends
# requests to this node.
_DOCS_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


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


@router.get(
    "/metrics",
    summary="Read the node's metrics",
    response_class=PlainTextResponse,
    responses={
        200: {"description": "All series in Prometheus' text form; docs/monitoring.md lists them."},
        **problems(),
    },
)
async def get_metrics(request: Request) -> Response:
    """Return what this node counts and measures. In an outage of the database the series of its records are absent."""
    metrics: NodeMetrics = request.app.state.metrics
    return Response(await metrics.scrape(), media_type=CONTENT_TYPE, headers={"Cache-Control": "no-store"})


def install_docs(app: FastAPI) -> None:
    """Install the documentation page with local assets, so that it works without a network.

    It is Swagger UI with FastAPI's defaults, but its script is a file: the page's policy allows no script inside.
    """
    page, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("docs.html", "docs.js"))

    @app.get(f"{_STATIC}/docs.js", include_in_schema=False)
    def get_docs_script() -> Response:
        return Response(script, media_type="text/javascript")

    @app.get("/docs", include_in_schema=False)
    def show_docs() -> Response:
        return HTMLResponse(page, headers={"Content-Security-Policy": _DOCS_POLICY})

    folder = Path(fastapi_offline.__file__).parent / "static"
    app.mount(_STATIC, StaticFiles(directory=folder), name="docs-assets")
