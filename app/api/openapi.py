"""Completes the OpenAPI document: operation ids, tags, headers of every response, and models that no route declares.

Imports no services. The document is built once, on the first request for it.
"""

from threading import Lock
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from starlette.responses import JSONResponse, Response

from app import __version__
from app.api.access.scopes import NEEDS, describe_keys
from app.schemas.exports import CocoRead
from app.schemas.forms import ClassifyForm, ClipScoreForm, UploadImagesForm
from app.schemas.generations import GenerationEvent
from app.schemas.jobs import JobSummary
from app.schemas.judging import ClassifyRequest, ClipScoreRequest
from app.schemas.links import add_links
from app.schemas.problems import Problem
from app.schemas.response_docs import (
    ALWAYS,
    HEADERS,
    IF_NONE_MATCH,
    JSON,
    QUOTAS,
    UNCHANGED,
    accepted,
    headers,
    problem,
    problems,
)
from app.schemas.service import NotReady

__all__ = ["BODY_STATUSES", "accepted", "install", "operation_id", "problems"]

DESCRIPTION = """From a prompt to a trained image classifier.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Later versions may add fields to answers, values
to their enums and operations; clients ignore what they do not know. Requests with unknown fields or unknown query
parameters are refused. `type` of an error is the path of a page that explains its code.

`{dataset_id}`, `{model_id}` and the `{job_id}` of a train job may be the name instead. `HEAD` is answered wherever
`GET` is. JSON has an `ETag`: with `If-None-Match` the answer is 304 while nothing has changed. Texts are sent in gzip
to clients that accept it.

One operation takes one type of body. `POST /clip-score` and `POST /classify` also take the forms of
`/clip-score/files` and `/classify/files`.
"""
TAGS = [
    {"name": "images", "description": "Images from a prompt, and stored images."},
    {"name": "judging", "description": "CLIP scores and classification of images."},
    {"name": "datasets", "description": "Labelled datasets of generated and uploaded images."},
    {"name": "training", "description": "Train jobs and trained models."},
    {"name": "jobs", "description": "Background jobs of every kind."},
    {"name": "keys", "description": "API keys and their quotas; for keys with the scope `admin`."},
    {"name": "service", "description": "State, capabilities and limits of the node."},
]
SERVERS = [{"url": "/", "description": "This node, local or in production.", "x-internal": False}]

# Statuses of a JSON body that is too slow, too large or not JSON.
BODY_STATUSES = (408, 413, 415)

# Models that no route declares: bodies of routes that read JSON or a form themselves, problems, events.
_READ: list[Any] = [ClipScoreRequest, ClassifyRequest, ClipScoreForm, ClassifyForm, UploadImagesForm]
_WRITTEN: list[Any] = [Problem, NotReady, GenerationEvent, JobSummary, CocoRead]


def operation_id(route: APIRoute) -> str:
    """Return the route function's name in camelCase: `create_dataset` is `createDataset`."""
    head, *rest = route.name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def install(app: FastAPI) -> None:
    """Install the builder of the OpenAPI document in the application, and serve it.

    It takes a second of computing, so a thread builds it; FastAPI's own route would hold the event loop.
    """
    building = Lock()

    def build() -> dict[str, Any]:
        with building:
            if app.openapi_schema is None:
                app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way to extend the document

    @app.get("/openapi.json", include_in_schema=False)
    def get_document() -> Response:
        return JSONResponse(build())


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Foxhound",
        version=__version__,
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
        servers=SERVERS,
        contact={"name": "The maintainers of Foxhound"},
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    describe_keys(document)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method == "get":
                _describe_tags(operation)
            responses = operation["responses"] | _refusals(method, path, operation["responses"])
            operation["responses"] = {status: _complete(status, one) for status, one in sorted(responses.items())}
    add_links(document)
    schemas = {**_undeclared(), **document["components"]["schemas"]}
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    used = {name for path in document["paths"].values() for operation in path.values() for name in _headers(operation)}
    document["components"]["headers"] = {name: HEADERS[name] for name in sorted(used)}
    return document


def _describe_tags(operation: dict[str, Any]) -> None:
    """Add what the layers around all routes answer to reads of JSON: an entity tag, and 304 if the request has it."""
    answer = operation["responses"]["200"]
    if not {JSON, "application/ld+json"} & answer.get("content", {}).keys() or "304" in operation["responses"]:
        return
    answer["headers"] = {**headers("ETag", "Cache-Control"), **answer.get("headers", {})}
    operation["responses"]["304"] = UNCHANGED
    operation.setdefault("parameters", []).append(IF_NONE_MATCH)


def _refusals(method: str, path: str, responses: dict[str, Any]) -> dict[str, Any]:
    """Return what is answered before a route is chosen: to requests without a key, to other hosts and other origins.

    Args:
        method: In lower case.
        path: The template of the route.
        responses: Those of the route, which say it better where they have the status.
    """
    statuses = {421} if method == "get" else {403, 421}
    if NEEDS[method.upper(), path]:
        statuses |= {401, 403, 429, 503}
    return {str(status): problem(status) for status in statuses if str(status) not in responses}


def _headers(operation: dict[str, Any]) -> set[str]:
    return {name for response in operation["responses"].values() for name in response["headers"]}


def _undeclared() -> dict[str, Any]:
    modes: list[tuple[list[Any], JsonSchemaMode]] = [(_READ, "validation"), (_WRITTEN, "serialization")]
    inputs = [(str(model), mode, TypeAdapter(model)) for models, mode in modes for model in models]
    _, schemas = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return dict(schemas["$defs"])


def _complete(status: str, response: dict[str, Any]) -> dict[str, Any]:
    """Return a response with the common headers, without FastAPI's own form of errors and streams."""
    if status == "422" and "application/json" in response.get("content", {}):
        response = problem(422)
    for media in response.get("content", {}).values():
        media.pop("itemSchema", None)  # OpenAPI 3.2
    common = (*ALWAYS, *QUOTAS) if status[0] in "24" else ALWAYS
    return {**response, "headers": {**headers(*common), **response.get("headers", {})}}
