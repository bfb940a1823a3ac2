"""Refuses query parameters that a route does not have, as bodies refuse unknown fields.

One dependency of every router of the contract; `app.main` gives it to them. Pages and their assets are exempt. Imports
no services; runs on the event loop.
"""

import difflib
from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from app.error_codes import ErrorCode
from app.errors import FieldError, Invalid

# Most unknown names that one answer lists, and most characters of each.
_MAX_LISTED, _MAX_CHARS = 50, 64


async def refuse_unknown_query(request: Request) -> None:
    """Refuse a request with a query parameter that its route does not have.

    Raises:
        Invalid: One fault for each unknown name; its detail lists the names that exist.
    """
    if not request.scope["query_string"]:
        return
    route: APIRoute = request.scope["route"]
    known = tuple(dict.fromkeys(_names(route.dependant)))
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        faults = [_fault(name[:_MAX_CHARS], known) for name in unknown[:_MAX_LISTED]]
        raise Invalid(faults[0].detail, errors=faults)


def _names(dependant: Dependant) -> Iterator[str]:
    """Yield the names of a route's query parameters, those of its dependencies too."""
    for parameter in dependant.query_params:
        yield parameter.alias
    for dependency in dependant.dependencies:
        yield from _names(dependency)


def _fault(name: str, known: tuple[str, ...]) -> FieldError:
    detail = "This query parameter does not exist."
    if close := difflib.get_close_matches(name, known, n=1):
        detail += f" Did you mean {close[0]}?"
    detail += f" This route has {', '.join(known)}." if known else " This route has none."
    pointer = name.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")
    return FieldError(f"#query/{pointer}", detail, ErrorCode.UNKNOWN_PARAMETER)
