"""The scope of every route: the table that the layer checks, and that the OpenAPI document describes.

Imports no routes. A route that is not in the table stops the application from being built.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from starlette.routing import compile_path

from app.access.caller import WRITING_SCOPES, Scope

# Any one of these scopes is enough; none is needed where there is no scope.
Need = frozenset[Scope]

OPEN: Need = frozenset()
_READ, _GENERATE, _DATASETS, _TRAIN, _ADMIN = (frozenset({scope}) for scope in Scope)
# The route asks for the scope of the job's kind, once it has read the job.
_OF_THE_JOB: Need = WRITING_SCOPES

NEEDS: Mapping[tuple[str, str], Need] = {
    ("GET", "/"): OPEN,
    ("GET", "/livez"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/docs/errors"): OPEN,
    ("GET", "/docs/errors/{code}"): OPEN,
    ("GET", "/capabilities"): _READ,
    ("GET", "/metrics"): _ADMIN,
    ("POST", "/generate"): _GENERATE,
    ("POST", "/generate/image"): _GENERATE,
    ("POST", "/generate/events"): _GENERATE,
    ("POST", "/clip-score"): _GENERATE,
    ("POST", "/clip-score/files"): _GENERATE,
    ("POST", "/classify"): _GENERATE,
    ("POST", "/classify/files"): _GENERATE,
    ("GET", "/generations"): _READ,
    ("GET", "/generations/{generation_id}"): _READ,
    ("DELETE", "/generations/{generation_id}"): _GENERATE,
    ("GET", "/images"): _READ,
    ("GET", "/images/{image_id}"): _READ,
    ("GET", "/images/{image_id}/metadata"): _READ,
    ("POST", "/datasets"): _DATASETS,
    ("GET", "/datasets"): _READ,
    ("GET", "/datasets/{dataset_id}"): _READ,
    ("DELETE", "/datasets/{dataset_id}"): _DATASETS,
    ("GET", "/datasets/{dataset_id}/recipe"): _READ,
    ("POST", "/datasets/{dataset_id}/extend"): _DATASETS,
    ("POST", "/datasets/{dataset_id}/repair"): _DATASETS,
    ("POST", "/datasets/{dataset_id}/images"): _DATASETS,
    ("GET", "/datasets/{dataset_id}/images"): _READ,
    ("GET", "/datasets/{dataset_id}/version"): _READ,
    ("GET", "/datasets/{dataset_id}/archive.zip"): _READ,
    ("GET", "/datasets/{dataset_id}/archive/{split}.zip"): _READ,
    ("GET", "/datasets/{dataset_id}/coco.json"): _READ,
    ("GET", "/datasets/{dataset_id}/croissant.json"): _READ,
    ("GET", "/datasets/{dataset_id}/shards"): _READ,
    ("GET", "/datasets/{dataset_id}/shards/{index}.tar"): _READ,
    ("GET", "/datasets/{dataset_id}/report"): _READ,
    ("GET", "/datasets/{dataset_id}/contact-sheet.png"): _READ,
    ("POST", "/train-jobs"): _TRAIN,
    ("GET", "/train-jobs"): _READ,
    ("GET", "/train-jobs/{job_id}"): _READ,
    ("POST", "/train-jobs/{job_id}/cancel"): _TRAIN,
    ("GET", "/train-jobs/{job_id}/report"): _READ,
    ("GET", "/train-jobs/{job_id}/report/{picture}.png"): _READ,
    ("GET", "/backbones"): _READ,
    ("GET", "/models"): _READ,
    ("GET", "/models/compare"): _READ,
    ("GET", "/models/{model_id}"): _READ,
    ("DELETE", "/models/{model_id}"): _TRAIN,
    ("GET", "/models/{model_id}/weights"): _READ,
    ("GET", "/models/{model_id}/export"): _READ,
    ("GET", "/models/{model_id}/card"): _READ,
    ("POST", "/models/{model_id}/evaluations"): _TRAIN,
    ("GET", "/models/{model_id}/evaluations"): _READ,
    ("GET", "/models/{model_id}/evaluations/{evaluation_id}"): _READ,
    ("GET", "/jobs"): _READ,
    ("GET", "/jobs/{job_id}"): _READ,
    ("GET", "/jobs/{job_id}/events"): _READ,
    ("POST", "/jobs/{job_id}/cancel"): _OF_THE_JOB,
    ("POST", "/jobs/{job_id}/pause"): _OF_THE_JOB,
    ("POST", "/jobs/{job_id}/resume"): _OF_THE_JOB,
    ("POST", "/jobs/{job_id}/retry"): _OF_THE_JOB,
}
# Files that belong to an open page.
_OPEN_FOLDERS = ("/docs/assets/",)

JOB_SCOPES: Mapping[str, Scope] = {
    "generate": Scope.GENERATE,
    "dataset": Scope.DATASETS,
    "repair": Scope.DATASETS,
    "train": Scope.TRAIN,
    "evaluate": Scope.TRAIN,
}


class FoundRoute(NamedTuple):
    """The route that will take a request.

    Attributes:
        template: Its path, such as `/jobs/{job_id}`; of a folder of files, the folder's.
        need: What it asks for.
    """

    template: str
    need: Need


class RouteNeeds:
    """Finds the route of a method and a path in the table, as the router finds it: fixed paths before variable ones."""

    def __init__(self, needs: Mapping[tuple[str, str], Need] = NEEDS) -> None:
        """Compile a table."""
        self._fixed = {key: FoundRoute(key[1], need) for key, need in needs.items() if "{" not in key[1]}
        self._open = {path for (_, path), need in needs.items() if need == OPEN}
        self._patterns: dict[str, list[tuple[re.Pattern[str], FoundRoute]]] = {}
        for (method, path), need in needs.items():
            if "{" in path:
                found = compile_path(path)[0], FoundRoute(path, need)
                self._patterns.setdefault(f"{method} {_first(path)}", []).append(found)

    def find(self, method: str, path: str) -> FoundRoute | None:
        """Return the route of a request; None: there is no such route. `HEAD` is taken as `GET`.

        Another method of an open path needs nothing either, so that the router answers 405 to it.
        """
        method = "GET" if method == "HEAD" else method
        if route := self._fixed.get((method, path)):
            return route
        for pattern, found in self._patterns.get(f"{method} {_first(path)}", ()):
            if pattern.match(path):
                return found
        if path in self._open:
            return FoundRoute(path, OPEN)
        folder = next((folder for folder in _OPEN_FOLDERS if method == "GET" and path.startswith(folder)), None)
        return FoundRoute(folder.rstrip("/"), OPEN) if folder else None


def require_listed(routes: Iterable[Any]) -> None:
    """Check that the table has every route of a router.

    Raises:
        LookupError: It lacks one.
    """
    for route in routes:
        for method in route.methods - {"HEAD"}:
            if (method, route.path) not in NEEDS:
                raise LookupError(f"Give {method} {route.path} a scope in app/api/access/scopes.py.")


def describe_keys(document: dict[str, Any]) -> None:
    """Add the security schemes and the security of every operation to an OpenAPI document.

    The scopes, any one of which is enough, are in `x-scopes`: linters know scopes in `security` for OAuth2 alone.
    """
    document["components"]["securitySchemes"] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key of `foxhound keys create`; needed once there is a key. `x-scopes` of an "
            "operation are the scopes of which it needs one; `admin` includes all others.",
        },
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key."},
    }
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            need = NEEDS[method.upper(), path]
            operation["security"] = [{"bearer": []}, {"apiKey": []}] if need else []
            operation["x-scopes"] = [scope.value for scope in sorted(need)]


def _first(path: str) -> str:
    """Return the first part of a path, up to its second slash; the variable parts of all routes come after it."""
    return path[: path.find("/", 1) + 1] or path
