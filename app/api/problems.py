"""Turns every exception into `application/problem+json` (RFC 9457); the only module that writes error bodies.

Error bodies repeat neither the rejected input nor an exception's text. Imports no services and no routes; runs on the
event loop.
"""

import difflib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from app.api.access.scopes import ROUTE_NEEDS
from app.api.parsing.validation_messages import code_and_detail
from app.error_codes import ErrorCode, problem_type
from app.errors import (
    NO_ROOM_ERRNOS,
    AppError,
    FieldError,
    Invalid,
    Malformed,
    NotFound,
    StorageFull,
    UnsupportedBody,
)

log = logging.getLogger("foxhound.api")

PROBLEM_MEDIA_TYPE = "application/problem+json"
# The member of a request's state that keeps the code of its problem, for the metrics.
PROBLEM_CODE = "problem_code"
MAX_ERRORS = 50
_FAILED = "The service failed on this request; its log has the reason under the request id."
# With more faults, only their number is reported.
_MAX_COUNTED = 5_000
_MAX_SUGGESTIONS = 10
# Most faulty values that a problem's detail names, and most characters of each name.
_MAX_NAMED, _MAX_NAME_CHARS = 3, 100
_COUNTED = " values are invalid."
_PLACES = {"": "Field", "query": "Query parameter", "header": "Header", "path": "Path parameter"}


def problem_body(
    scope: Scope,
    *,
    status: int,
    title: str,
    detail: str,
    code: str,
    errors: Sequence[FieldError] = (),
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a problem as JSON.

    Args:
        scope: The request's ASGI scope; gives `instance` and `request_id`.
        status: HTTP status, 400 .. 599.
        title: The kind of problem.
        detail: What happened in this request, for a person.
        code: Stable word for clients.
        errors: The faults of an invalid request; at most 50 are included.
        more: Further members of the problem.
    """
    scope.setdefault("state", {})[PROBLEM_CODE] = code
    problem: dict[str, Any] = {
        "type": problem_type(code),
        "title": title,
        "status": status,
        "detail": detail,
        "instance": scope["path"],
        "code": code,
        "request_id": scope.get("state", {}).get("request_id", ""),
        **(more or {}),
    }
    if errors:
        problem["errors"] = [
            {"pointer": error.pointer, "detail": error.detail, "code": error.code} for error in errors[:MAX_ERRORS]
        ]
    return json.dumps(problem).encode()


def respond(request: Request, error: AppError, more: Mapping[str, Any] | None = None) -> Response:
    """Return the response for an `AppError`, with `more` as further members of the problem."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 503:
        headers.setdefault("Retry-After", "1")
    body = problem_body(
        request.scope,
        status=error.status,
        title=error.title,
        detail=detail_with_field(error),
        code=error.code,
        errors=error.errors,
        more={**error.members, **(more or {})},
    )
    return Response(body, error.status, headers, PROBLEM_MEDIA_TYPE)


def detail_with_field(error: AppError) -> str:
    """Return an error's detail, which begins with the name of the faulty value if there is one and the error has it.

    So a client that shows `detail` alone says what to correct: `Field top_k: This must be at least 1.`
    """
    named = [where for fault in error.errors if (where := _where(fault.pointer))]
    if error.status != 422 or not named:
        return error.detail
    if len(error.errors) == 1:
        return f"{named[0]}: {error.detail}"
    told = error.detail if error.detail.endswith(_COUNTED) else f"{len(error.errors)}{_COUNTED}"
    more = len(error.errors) - min(len(named), _MAX_NAMED)
    others = f", and {more} more" if more > 0 else ""
    return f"{told.removesuffix('.')}: {', '.join(named[:_MAX_NAMED])}{others}."


def _where(pointer: str) -> str:
    """Return what a pointer names: `Field classes/0/name`, `Query parameter limit`; empty for the whole body."""
    place, _, path = pointer.removeprefix("#").partition("/")
    name = path.replace("~1", "/").replace("~0", "~")[:_MAX_NAME_CHARS]
    return f"{_PLACES.get(place, 'Value')} {name}" if name else ""


def install(app: FastAPI) -> None:
    """Install the exception handlers that answer every exception as a problem."""

    @app.exception_handler(AppError)
    async def on_app_error(request: Request, error: AppError) -> Response:
        if error.status >= 500:
            log.warning("%s: %s", error.code, error.detail, exc_info=error.__cause__)
        return respond(request, error)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(request, _invalid(request, error))

    @app.exception_handler(ResponseValidationError)
    async def on_invalid_response(request: Request, error: ResponseValidationError) -> Response:
        # The exception's own text repeats user input, and a location may contain a user's key.
        kinds = sorted({fault["type"] for fault in error.errors()[:MAX_ERRORS]})
        log.error("The response of %s does not match its schema: %s", request.scope["route"].path, ", ".join(kinds))
        return respond(request, AppError(_FAILED))

    @app.exception_handler(OSError)
    async def on_no_room(request: Request, error: OSError) -> Response:
        # Either in the data folder, or in the temporary folder where the framework spools a form's files.
        if error.errno not in NO_ROOM_ERRNOS:
            raise error
        log.warning("There is no room left for this request.", exc_info=error)
        return respond(request, StorageFull("There is no room left for this request."))

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        if error.status_code == 400:
            return respond(request, Malformed("The body is not valid JSON.", code=ErrorCode.MALFORMED_JSON))
        if error.status_code == 404:
            return respond(request, NotFound("There is nothing at this path."))
        # 204 is as it is. 405, 413, 416: the middleware writes the problem and keeps these headers.
        if error.status_code != 405:
            return Response(status_code=error.status_code, headers=error.headers)
        # The framework lists only the methods of the first route that matches.
        return Response(status_code=405, headers={"Allow": ", ".join(sorted(ROUTE_NEEDS.methods(request.url.path)))})


def invalid_of_validation(error: ValidationError, model: type[BaseModel]) -> Invalid:
    """Return the error for a body that does not match its model; it repeats no input and no names of the code.

    The first faults are listed and all are counted: listing thousands would take long and help nobody.
    """
    count = error.error_count()
    if count > _MAX_COUNTED:
        fault = FieldError("#", "The body has too many faults to list each of them.", ErrorCode.TOO_MANY_FAULTS)
        return Invalid(f"{count}{_COUNTED}", errors=[fault])
    details = error.errors(include_input=False, include_url=False)
    located = [{**detail, "loc": ("body", *detail["loc"])} for detail in details[:MAX_ERRORS]]
    return _invalid_of(located, count, sorted(model.model_fields))


def _invalid_of(faults: Sequence[Mapping[str, Any]], count: int, known: Sequence[str]) -> Invalid:
    """Return the error for the first of `count` faults; `known` are the valid field names, for suggestions."""
    found = [
        _fault(fault, known if number < _MAX_SUGGESTIONS else ()) for number, fault in enumerate(faults[:MAX_ERRORS])
    ]
    return Invalid(found[0].detail if count == 1 else f"{count}{_COUNTED}", errors=found)


def _fault(fault: Mapping[str, Any], known: Sequence[str]) -> FieldError:
    location = [
        step for step in fault["loc"] if step != "[key]"
    ]  # pydantic marks a faulty key of a dict; the pointer is that of its member
    where = location.pop(0) if location and location[0] in ("body", "query", "path", "header", "cookie") else "body"
    steps = "".join("/" + _escape(step) for step in location)
    pointer = f"#{steps}" if where == "body" else f"#{where}{steps}"
    code, detail = code_and_detail(fault)
    if code == "unknown_field":
        # The name comes from the client, so it is truncated; the pointer contains it already.
        close = difflib.get_close_matches(str(location[-1])[:64], known, n=1)
        detail = "This field does not exist." + (f" Did you mean {close[0]}?" if close else "")
    return FieldError(pointer, detail, code)


def _escape(step: Any) -> str:
    text = str(step)[:64].encode("utf-8", "replace").decode()
    return text.replace("~", "~0").replace("/", "~1")


def _invalid(request: Request, error: RequestValidationError) -> AppError:
    faults = error.errors()
    if any(fault["loc"][0] == "path" for fault in faults):
        return NotFound("There is nothing at this path.")
    if any(fault["type"] == "json_invalid" for fault in faults):
        return Malformed("The body is not valid JSON.", code=ErrorCode.MALFORMED_JSON)
    media_type = request.headers.get("content-type", "").split(";")[0].strip().lower()
    is_whole_body = any(tuple(fault["loc"]) == ("body",) for fault in faults)
    if is_whole_body and media_type != "application/json" and not media_type.endswith("+json"):
        return UnsupportedBody("Send application/json.")
    known = sorted({name for field in _body_fields(request) for name in field})
    return _invalid_of(faults, len(faults), known)


def _body_fields(request: Request) -> list[list[str]]:
    route = request.scope.get("route")
    body_field = getattr(route, "body_field", None)
    model = getattr(getattr(body_field, "field_info", None), "annotation", None)
    return [list(getattr(model, "model_fields", {}))]
