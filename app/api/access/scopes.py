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
    ("GET", "/openapi.compat.json"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/docs/errors"): OPEN,
    ("GET", "/docs/errors/{code}"): OPEN,
    ("GET", "/ui"): OPEN,
    ("GET", "/capabilities"): _READ,
    ("GET", "/metrics"): _ADMIN,
    ("GET", "/keys"): _ADMIN,
    ("POST", "/keys"): _ADMIN,
    ("GET", "/keys/{key_id}"): _ADMIN,
    ("PATCH", "/keys/{key_id}"): _ADMIN,
    ("DELETE", "/keys/{key_id}"): _ADMIN,
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
    ("GET", "/generations/{generation_id}/grid.png"): _READ,
    ("POST", "/generations/{generation_id}/repeat"): _GENERATE,
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
    ("PATCH", "/datasets/{dataset_id}/images/{image_id}"): _DATASETS,
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
# The routes for other services' clients, which `/openapi.compat.json` describes.
COMPAT_NEEDS: Mapping[tuple[str, str], Need] = {
    ("POST", "/v1/images/generations"): _GENERATE,
    ("POST", "/v1/images/edits"): _GENERATE,
    ("POST", "/v1/images/variations"): _GENERATE,
    ("GET", "/v1/models"): _READ,
    ("GET", "/v1/models/{model_id}"): _READ,
    ("POST", "/v1/embeddings"): _GENERATE,
    ("POST", "/hf/text-to-image"): _GENERATE,
    ("POST", "/hf/image-to-image"): _GENERATE,
    ("POST", "/hf/image-classification"): _GENERATE,
    ("POST", "/hf/zero-shot-image-classification"): _GENERATE,
    ("GET", "/hf/health"): _READ,
    ("GET", "/hf/info"): _READ,
    ("GET", "/hf/{task}/health"): _READ,
    ("GET", "/hf/{task}/info"): _READ,
    ("GET", "/sdapi/v1/options"): _READ,
    ("GET", "/sdapi/v1/samplers"): _READ,
    ("GET", "/sdapi/v1/schedulers"): _READ,
    ("GET", "/sdapi/v1/sd-models"): _READ,
    ("GET", "/sdapi/v1/sd-vae"): _READ,
    ("GET", "/sdapi/v1/upscalers"): _READ,
    ("GET", "/sdapi/v1/latent-upscale-modes"): _READ,
    ("GET", "/sdapi/v1/loras"): _READ,
    ("GET", "/sdapi/v1/embeddings"): _READ,
    ("GET", "/sdapi/v1/hypernetworks"): _READ,
    ("GET", "/sdapi/v1/face-restorers"): _READ,
    ("GET", "/sdapi/v1/realesrgan-models"): _READ,
    ("GET", "/sdapi/v1/prompt-styles"): _READ,
    ("GET", "/sdapi/v1/scripts"): _READ,
    ("GET", "/sdapi/v1/cmd-flags"): _READ,
    ("GET", "/sdapi/v1/memory"): _READ,
    ("GET", "/sdapi/v1/progress"): _READ,
    ("POST", "/sdapi/v1/txt2img"): _GENERATE,
    ("POST", "/sdapi/v1/img2img"): _GENERATE,
    ("POST", "/sdapi/v1/options"): _GENERATE,
    ("POST", "/sdapi/v1/interrogate"): _GENERATE,
    ("POST", "/sdapi/v1/refresh-checkpoints"): _GENERATE,
    ("POST", "/sdapi/v1/interrupt"): _GENERATE,
    ("POST", "/sdapi/v1/skip"): _GENERATE,
    ("POST", "/sdapi/v1/png-info"): _GENERATE,
}
_ALL = {**NEEDS, **COMPAT_NEEDS}
# Files that belong to an open page, and the console, whose pages hold no data.
_OPEN_FOLDERS = ("/docs/assets/", "/ui/")

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

    def __init__(self, needs: Mapping[tuple[str, str], Need] = _ALL) -> None:
        """Compile a table."""
        self._fixed = {key: FoundRoute(key[1], need) for key, need in needs.items() if "{" not in key[1]}
        self._open = [(compile_path(path)[0], path) for (_, path), need in needs.items() if need == OPEN]
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
        if template := next((template for pattern, template in self._open if pattern.match(path)), None):
            return FoundRoute(template, OPEN)
        folder = next((folder for folder in _OPEN_FOLDERS if method == "GET" and path.startswith(folder)), None)
        return FoundRoute(folder.rstrip("/"), OPEN) if folder else None

    def methods(self, path: str) -> set[str]:
        """Return the methods that a path has, `HEAD` included; of a fixed path its own, else of all that match it."""
        found = {method for method, fixed in self._fixed if fixed == path} or {
            key.split(" ")[0] for key, routes in self._patterns.items() if any(one.match(path) for one, _ in routes)
        }
        if path.startswith(_OPEN_FOLDERS):
            found.add("GET")
        return found | ({"HEAD"} if "GET" in found else set())


def require_listed(routes: Iterable[Any]) -> None:
    """Check that the table has every route of a router.

    Raises:
        LookupError: It lacks one.
    """
    for route in routes:
        for method in route.methods - {"HEAD"}:
            if (method, route.path) not in _ALL:
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
            need = _ALL[method.upper(), path]
            operation["security"] = [{"bearer": []}, {"apiKey": []}] if need else []
            operation["x-scopes"] = [scope.value for scope in sorted(need)]


def _first(path: str) -> str:
    """Return the first part of a path, up to its second slash; the variable parts of all routes come after it."""
    return path[: path.find("/", 1) + 1] or path


ROUTE_NEEDS = RouteNeeds()
