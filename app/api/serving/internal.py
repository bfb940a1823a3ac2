"""The engine's half of the node's protocol: a second application on the node's Unix socket, never on the network.

Only this node's worker calls it; it is not in the OpenAPI file. Requests are queued behind interactive ones unless they
say otherwise. Runs on the event loop.
"""

import asyncio
import json

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from app.api import problems
from app.api.serving.disconnects import unless_left
from app.node import protocol
from app.services.inference.remote import NodeEngine


def create_internal_app(engine: NodeEngine) -> FastAPI:
    """Return the application of the node's socket."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app)

    @app.post(protocol.RENDER)
    async def render(request: Request) -> Response:
        asked = protocol.RenderRequest.from_json(await request.json())
        body, headers = protocol.encode_image(await unless_left(request, engine.render(asked, caller=_caller(request))))
        return Response(body, headers=headers)

    @app.post(protocol.FEATURE_BATCH)
    async def feature_batch(request: Request) -> Response:
        batch = protocol.FeatureBatch.decode(await request.body(), request.headers)
        rows = await unless_left(request, engine.feature_batch(batch, caller=_caller(request)))
        return Response(protocol.encode_features(rows))

    @app.post(protocol.TEXTS)
    async def texts(request: Request) -> Response:
        asked = (await request.json())["texts"]
        embedded = await unless_left(request, engine.texts(asked, caller=_caller(request)))
        return JSONResponse(embedded.to_json())

    @app.post(protocol.BACKBONE)
    async def backbone(request: Request) -> Response:
        body = await request.body()
        name = json.loads(body)["name"] if body else protocol.PACK_BACKBONE
        # On a thread: the first description of a backbone hashes its file.
        facts = await asyncio.to_thread(engine.backbone, name)
        return JSONResponse(facts.to_json())

    _add_fine_tuning(app, engine)
    return app


def _caller(request: Request) -> str:
    """Return of whom the worker's request is; empty from workers of older releases."""
    return request.headers.get(protocol.CALLER, "")


def _add_fine_tuning(app: FastAPI, engine: NodeEngine) -> None:
    """Add the routes of fine-tuning."""

    @app.post(protocol.FINE_TUNE_NETWORK)
    async def fine_tune_network(request: Request) -> Response:
        name = (await request.json())["name"]
        return JSONResponse(await asyncio.to_thread(engine.fine_tuning.network, name))

    @app.post(protocol.FINE_TUNE_EPOCH)
    async def fine_tune_epoch(request: Request) -> Response:
        asked = protocol.FineTuneAsked.from_json(await request.json())
        return JSONResponse(await unless_left(request, engine.fine_tuning.epoch(asked, caller=_caller(request))))

    @app.post(protocol.FINE_TUNE_MODEL)
    async def fine_tune_model(request: Request) -> Response:
        asked = protocol.FineTuneAsked.from_json(await request.json())
        finished = await unless_left(request, engine.fine_tuning.model(asked, caller=_caller(request)))
        body, headers = finished.encode()
        return Response(body, headers=headers)
