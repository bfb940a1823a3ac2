"""What is counted, logged and traced of a request: templates, methods and numbers, never a client's own words.

Imports no routes. Runs on the event loop.
"""

import logging

from starlette.types import Scope

from app.api.access.scopes import ROUTE_NEEDS
from app.api.problems import PROBLEM_CODE
from app.logs.formats import FIELDS
from app.metrics.http import Answered
from app.tracing.spans import Span

log = logging.getLogger("foxhound.access")

# Other methods are the client's words.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
OTHER_METHOD = "OTHER"
# A request of an unknown path, or whose head could not be read.
NO_ROUTE = "none"
# The status of a request whose client left before the answer began, as nginx logs it.
CLIENT_LEFT = 499


def observe(scope: Scope, status: int, *, seconds: float, received: int, sent: int) -> Answered:
    """Return what is counted of a request that has ended.

    Args:
        scope: Its scope, after the application has handled it.
        status: Of the answer; 0 if it did not begin.
        seconds: Duration.
        received: Bytes of its body.
        sent: Bytes of the answer's body.
    """
    has_problem = status not in (0, CLIENT_LEFT)
    return Answered(
        method=scope["method"] if scope["method"] in _METHODS else OTHER_METHOD,
        route=_route(scope),
        status=status or CLIENT_LEFT,
        seconds=seconds,
        received=received,
        sent=sent,
        code=scope["state"].get(PROBLEM_CODE, "") if has_problem else "",
    )


def record(answered: Answered, level: int) -> None:
    """Log a request that has ended."""
    elapsed_ms = round(answered.seconds * 1000, 1)
    values = (answered.method, answered.route, answered.status, elapsed_ms, answered.sent)
    fields = dict(zip(("method", "route", "status", "ms", "bytes"), values, strict=True))
    log.log(level, "%s %s %d %.1f ms %d bytes", *values, extra={FIELDS: fields})


def describe(span: Span, answered: Answered) -> None:
    """Name a request's span, once its route and its status are known."""
    span.rename(f"{answered.method} {answered.route}")
    span.set("http.request.method", answered.method)
    span.set("http.route", answered.route)
    span.set("http.response.status_code", answered.status)
    if answered.status >= 500:
        span.fail(answered.code or "error")


def _route(scope: Scope) -> str:
    """Return the template of the route of a request, such as `/jobs/{job_id}`, also where a layer refused it."""
    path = getattr(scope.get("route"), "path", "") or scope.get("root_path", "")
    if not path and "endpoint" in scope and not scope.get("path_params"):
        path = scope["path"]  # of a route of the framework itself, which is no template
    if not path and (found := ROUTE_NEEDS.find(scope["method"], scope["path"])):
        path = found.template
    return str(path or NO_ROUTE)
