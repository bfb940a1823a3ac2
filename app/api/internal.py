"""The engine for this node's worker: a second application on a Unix socket, never on the network.

Requests go behind interactive ones unless they say otherwise. Not in the OpenAPI file.
"""

import json
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import JSONResponse, Response

from app.api import problems
from app.api.routes.generate import unless_left
from app.services.inference.remote import NodeEngine


class RenderBody(BaseModel):
    """One image to make."""

    model_config = ConfigDict(hide_input_in_errors=True)

    spec: dict[str, Any]
    labels: list[str] | None
    background: bool


def create_internal_app(engine: NodeEngine) -> FastAPI:
    """Return the application of the node's socket."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app)

    @app.get("/loading")
    def loading() -> JSONResponse:
        return JSONResponse(engine.is_loading())

    @app.post("/render")
    async def render(request: Request, body: RenderBody) -> Response:
        image = await unless_left(request, engine.render(body.spec, labels=body.labels, background=body.background))
        # In the body, since the scores of many labels are more than a header may hold.
        info = json.dumps(image.info()).encode()
        return Response(info + image.data, headers={"X-Foxhound-Info-Bytes": str(len(info))})

    @app.post("/features")
    async def features(request: Request) -> Response:
        data = await request.body()
        row: np.ndarray = await unless_left(request, engine.features(data))
        return Response(row.astype("<f4").tobytes())

    @app.post("/backbone")
    async def backbone() -> Response:
        return JSONResponse(engine.backbone())

    return app
