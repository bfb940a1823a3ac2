"""What the routes tell the OpenAPI file about their responses: problems, accepted jobs, files, event streams, headers.

Each header is one component of the file. The middleware sends `X-Request-Id` with every response, so `app.api.openapi`
adds it to each of them. Imports no services; runs when the routes are imported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Responses = dict[int | str, dict[str, Any]]

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
# Every file is sent under this type too, if `Accept` asks for it: some generated clients know no other type of bytes.
BYTES = "application/octet-stream"
JSON, EVENTS = "application/json", "text/event-stream"

REASONS = {
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


def _text(description: str, max_length: int = 255, **schema: Any) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string", "maxLength": max_length, **schema}}


HEADERS: Mapping[str, dict[str, Any]] = {
    "Access-Control-Allow-Origin": _text("The page's origin, if the node allows it; else not sent."),
    "Accept-Ranges": _text("`bytes`: `Range` is served."),
    "Cache-Control": _text("How long the response may be kept, and by whom."),
    "Content-Disposition": _text("Name of the file."),
    "Content-Location": _text("URL of the stored image."),
    "Content-Range": _text("Which bytes of the file these are."),
    "ETag": _text("Identifies the bytes; send it as `If-None-Match`, or as `If-Range` to resume."),
    "Idempotency-Replayed": _text("`true` if this answer was given to an earlier request with the key."),
    "Last-Modified": _text("When the file was stored."),
    "Location": _text("URL of the accepted resource."),
    "Preference-Applied": _text("The preferences of `Prefer` that were followed: `respond-async`, `wait=n`."),
    "RateLimit": _text("What is left of the caller's quota; only where quotas apply."),
    "RateLimit-Policy": _text("The caller's quotas; only where quotas apply."),
    "Retry-After": {
        "description": "Seconds to wait.",
        "schema": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 86_400},
    },
    "WWW-Authenticate": _text("`Bearer`."),
    "X-Foxhound-Image-Id": _text("Id of the stored image."),
    "X-Foxhound-Seed": {
        "description": "Seed of the image.",
        "schema": {"type": "integer", "format": "int64", "minimum": 0, "maximum": 2**53 - 1},
    },
    "X-Request-Id": _text("Id of the request in the log: that of the request's own header, or a new one.", 64),
}
ALWAYS = ("X-Request-Id", "Access-Control-Allow-Origin")
QUOTAS = ("RateLimit", "RateLimit-Policy")
_FILE_HEADERS = ("ETag", "Cache-Control", "Accept-Ranges", "Content-Disposition", "Last-Modified")


def headers(*names: str) -> dict[str, Any]:
    """Return the `headers` of a response that has these."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def problems(*statuses: int) -> Responses:
    """Return the `responses` of a route with these error statuses; 500 always, 429 with 408: both are of bodies."""
    always = {500, 429} if 408 in statuses else {500}
    return {status: problem(status) for status in sorted({*statuses, *always})}


def problem(status: int, schema: str = "Problem") -> dict[str, Any]:
    """Return an error response."""
    content = {"application/problem+json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    response: dict[str, Any] = {"description": REASONS[status], "content": content}
    own = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}.get(status, [])
    return {**response, "headers": headers(*own)} if own else response


def accepted(description: str, *statuses: int) -> Responses:
    """Return the `responses` of a route that accepts a job: 202 with `Location`, and what each such route can return.

    Args:
        description: Of the 202.
        statuses: Further error statuses.
    """
    response = {"description": description, "headers": headers("Location", "Idempotency-Replayed")}
    return {202: response, **problems(400, 409, 422, 503, 507, *statuses)}


def binary(*media_types: str) -> dict[str, Any]:
    """Return the `content` of a response or a part with bytes of these types."""
    return {
        media_type: {"schema": {"type": "string", "format": "binary", "contentMediaType": media_type}}
        for media_type in media_types
    }


def file(description: str, media_types: Sequence[str], *statuses: int) -> Responses:
    """Return the `responses` of a route that serves a file, whole or in ranges, to clients that may have it already.

    Args:
        description: Of the file.
        media_types: Its possible types.
        statuses: Error statuses.
    """
    content = binary(*media_types, BYTES)
    return {
        200: {"description": description, "content": content, "headers": headers(*_FILE_HEADERS)},
        206: {
            "description": "The requested range of the file.",
            "content": content,
            "headers": headers(*_FILE_HEADERS, "Content-Range"),
        },
        304: UNCHANGED,
        **problems(*statuses),
    }


def json_file(description: str, schema: str, *statuses: int) -> Responses:
    """Return the `responses` of a route that serves a JSON document as a file, whole or in ranges."""
    responses = file(description, (), *statuses)
    whole = {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}, **binary(BYTES)}
    part = {**binary(BYTES), JSON: binary(BYTES)[BYTES]}
    responses[200] = {**responses[200], "content": whole}
    responses[206] = {**responses[206], "content": part}
    return responses


UNCHANGED: dict[str, Any] = {
    "description": "Not modified: `If-None-Match` contains the current ETag.",
    "headers": headers("ETag", "Cache-Control"),
}


IF_NONE_MATCH: dict[str, Any] = {
    "name": "if-none-match",
    "in": "header",
    "required": False,
    "description": "An ETag; if the answer still has it, 304 without a body.",
    "schema": {"anyOf": [{"type": "string", "maxLength": 8_000}, {"type": "null"}], "title": "If-None-Match"},
}


def event_stream(schema: str, description: str, example: str) -> dict[str, Any]:
    """Return a response of server-sent events.

    OpenAPI 3.1 has no word for the type of one event of a stream, so the schema is that of one event's data, as
    generators of clients read it.

    Args:
        schema: Name of the component that each event's data has, as JSON.
        description: Of the events.
        example: One or more events.
    """
    content = {EVENTS: {"schema": {"$ref": f"#/components/schemas/{schema}"}, "x-example-stream": example}}
    return {"description": description, "content": content, "headers": headers("Cache-Control")}
