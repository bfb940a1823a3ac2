"""Builds `/openapi.compat.json`: the routes for other services' clients, apart from the native contract.

Imports no services. The document is built once, on the first request for it.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, TypeAdapter
from starlette.responses import JSONResponse, Response

from app import __version__
from app.api.access.scopes import describe_keys
from app.api.compat.a1111.schemas import Img2ImgBody, InterrogateBody, PngInfoBody, WebUiError
from app.api.compat.huggingface.schemas import ClassificationBody, HuggingFaceError, ImageToImageBody, ZeroShotBody
from app.api.compat.openai.schemas import EditBody, EmbeddingsBody, OpenAiErrorBody, VariationBody
from app.api.openapi import SERVERS
from app.schemas.response_docs import ALWAYS, HEADERS, JSON, REASONS, headers

DESCRIPTION = """Foxhound for the clients of other services, unmodified: they need another base URL only.

These routes translate to those of `/openapi.json`, which is the service's own contract. Unknown fields and query
parameters are ignored. Fields that change the picture and cannot be honoured are named in the headers `Warning` and
`X-Foxhound-Warning`. Errors have the form of the other service.
"""
TAGS = [
    {"name": "openai", "description": "OpenAI's images, models and embeddings."},
    {"name": "a1111", "description": "The routes of AUTOMATIC1111's web UI."},
    {"name": "huggingface", "description": "Tasks of Hugging Face's inference clients, one URL a task."},
]
# Models that no route declares: bodies that routes read themselves.
_READ: Sequence[type[BaseModel]] = (
    EditBody,
    VariationBody,
    EmbeddingsBody,
    Img2ImgBody,
    ImageToImageBody,
    ClassificationBody,
    ZeroShotBody,
    PngInfoBody,
    InterrogateBody,
)
_ERRORS: dict[str, type[BaseModel]] = {"openai": OpenAiErrorBody, "huggingface": HuggingFaceError, "a1111": WebUiError}
_OF_GET = (400, 401, 403, 404, 421, 429, 500, 503)
_OF_POST = (*_OF_GET, 406, 408, 413, 415, 422, 507)


def install(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Serve the document, and keep it for `Allow` in the application's state."""

    @lru_cache(maxsize=1)
    def build() -> dict[str, Any]:
        return _build(routers)

    app.state.compat_document = build

    @app.get("/openapi.compat.json", include_in_schema=False)
    def get_compat_document() -> Response:
        return JSONResponse(build())


def _build(routers: Sequence[APIRouter]) -> dict[str, Any]:
    document = get_openapi(
        title="Foxhound for other clients",
        version=__version__,
        description=DESCRIPTION,
        routes=[route for router in routers for route in router.routes],
        tags=TAGS,
        servers=SERVERS,
        contact={"name": "The maintainers of Foxhound"},
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    describe_keys(document)
    for methods in document.setdefault("paths", {}).values():
        for method, operation in methods.items():
            operation["responses"].pop("422", None)  # the framework's own form
            responses = operation["responses"] | _refusals(method, operation["tags"][0])
            operation["responses"] = {status: _complete(one) for status, one in sorted(responses.items())}
    schemas.update(_undeclared())
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["schemas"] = dict(sorted(schemas.items()))
    components["headers"] = {name: HEADERS[name] for name in (*ALWAYS, "RateLimit", "RateLimit-Policy", "Retry-After")}
    return document


def _refusals(method: str, tag: str) -> dict[str, Any]:
    """Return the errors of an operation in the form of its surface."""
    content = {JSON: {"schema": {"$ref": f"#/components/schemas/{_ERRORS[tag].__name__}"}}}
    return {
        str(status): {
            "description": REASONS[status],
            "content": content,
            **({"headers": headers("Retry-After")} if status in (429, 503) else {}),
        }
        for status in (_OF_GET if method == "get" else _OF_POST)
    }


def _complete(response: dict[str, Any]) -> dict[str, Any]:
    common = headers(*ALWAYS, "RateLimit", "RateLimit-Policy")
    return {**response, "headers": {**common, **response.get("headers", {})}}


def _undeclared() -> dict[str, Any]:
    inputs: list[Any] = [(model.__name__, "validation", TypeAdapter(model)) for model in _READ]
    inputs += [(model.__name__, "serialization", TypeAdapter(model)) for model in _ERRORS.values()]
    _, schemas = TypeAdapter.json_schemas(inputs, ref_template="#/components/schemas/{model}")
    return dict(schemas["$defs"])
