"""Completes the OpenAPI document: operation ids, problem responses, and models that no route declares.

Imports no services. The document is built once, on the first request for it.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app import __version__
from app.api.access.scopes import NEEDS, describe_keys
from app.schemas.exports import CocoRead
from app.schemas.generations import GenerationProgress
from app.schemas.judging import ClassifyRequest, ClipScoreRequest
from app.schemas.problems import Problem

DESCRIPTION = "From a prompt to a trained image classifier."
TAGS = [
    {"name": "images", "description": "Images from a prompt, and stored images."},
    {"name": "judging", "description": "CLIP scores and classification of images."},
    {"name": "datasets", "description": "Labelled datasets of generated and uploaded images."},
    {"name": "training", "description": "Train jobs and trained models."},
    {"name": "jobs", "description": "Background jobs of every kind."},
    {"name": "service", "description": "State, capabilities and limits of the node."},
]

# Statuses of a JSON body that is too slow, too large or not JSON.
BODY_STATUSES = (408, 413, 415)

_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_REASONS = {
    400: "Malformed: the JSON, the form, the cursor or a header cannot be parsed.",
    401: "The request needs an API key, or its key is not valid.",
    403: "The API key does not have the scope that this needs (`scope` names it), or a page of another origin sends "
    "the request, and the node does not allow this origin.",
    404: "There is no resource with this id.",
    406: "The response is not available in an accepted media type.",
    408: "The body did not arrive in time.",
    409: "The state of the resource does not allow this.",
    410: "A stored file is missing or damaged; `code` says which, `detail` what to do.",
    413: "The body or the image is too large.",
    415: "The media type of the body or of the image is not supported.",
    416: "The requested range is outside the file.",
    421: "The node does not answer under the `Host` of the request.",
    422: "The request is well-formed but invalid; `errors` lists each fault.",
    429: "Too many large requests came from this address. Retry after `Retry-After` seconds.",
    500: "The service failed.",
    503: "Loading, at capacity, or shutting down. Retry after `Retry-After` seconds.",
    507: "There is no room left to store the result.",
}
# Models that no route declares: bodies of routes that accept JSON or a form and read it themselves, problems, events.
_UNDECLARED: list[type[BaseModel]] = [ClipScoreRequest, ClassifyRequest, CocoRead, Problem, GenerationProgress]


def operation_id(route: APIRoute) -> str:
    """Return the route function's name in camelCase: `create_dataset` is `createDataset`."""
    head, *rest = route.name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route with these error statuses; 500 always, 429 with 408: both are of bodies."""
    always = {500, 429} if 408 in statuses else {500}
    return {status: _response(status) for status in sorted({*statuses, *always})}


def accepted(description: str, *statuses: int, of: str = "resource") -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that accepts a job: 202 with `Location`, and what each such route can return.

    Args:
        description: Of the 202.
        statuses: Further error statuses.
        of: What `Location` is the URL of.
    """
    location = {"Location": {"description": f"URL of the {of}.", "schema": {"type": "string"}}}
    return {202: {"description": description, "headers": location}, **problems(400, 409, 422, 503, 507, *statuses)}


def _response(status: int) -> dict[str, Any]:
    response: dict[str, Any] = {"description": _REASONS[status], "content": _PROBLEM}
    if status in (429, 503):
        schema = {"type": "integer", "format": "int32", "minimum": 0, "maximum": 86_400}
        response["headers"] = {"Retry-After": {"description": "Seconds to wait.", "schema": schema}}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": {"description": "`Bearer`.", "schema": {"type": "string"}}}
    return response


def install(app: FastAPI) -> None:
    """Install the builder of the OpenAPI document in the application."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Foxhound",
        version=__version__,
        description=DESCRIPTION,
        routes=app.routes,
        tags=TAGS,
        servers=[{"url": "/", "description": "This node."}],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = document["components"]["schemas"]
    _, extra = models_json_schema(
        [(model, "validation") for model in _UNDECLARED], ref_template="#/components/schemas/{model}"
    )
    for name, schema in extra["$defs"].items():
        schemas.setdefault(name, schema)
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    describe_keys(document)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if NEEDS[method.upper(), path]:
                operation["responses"] |= {str(status): _response(status) for status in (401, 403, 429, 503)}
            _add_refusals(method, operation["responses"])
            operation["responses"] = dict(sorted(operation["responses"].items()))
            _drop_default_422(operation["responses"])
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    return document


def _add_refusals(method: str, responses: dict[str, Any]) -> None:
    """Add what is answered before a route is chosen: to other hosts, and to other origins that may change something."""
    for status in (421,) if method == "get" else (403, 421):
        responses.setdefault(str(status), _response(status))


def _drop_default_422(responses: dict[str, Any]) -> None:
    """Replace FastAPI's own validation error by a problem."""
    content = responses.get("422", {}).get("content", {})
    if "application/json" in content:
        responses["422"] = _response(422)
