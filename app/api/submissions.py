"""Reads priority and `Idempotency-Key` of requests that create jobs, and replays the response to a known key.

The key is read on the event loop; the database is queried on a thread. Imports no SQL.
"""

import asyncio
import hashlib
import json
import re
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Query, Request
from pydantic import Field
from starlette.responses import Response

from app.api.access.ids import CallerDep
from app.api.deps import ServicesDep
from app.api.parsing.json_bodies import RECIPE_BODY, JsonBounds, load_json
from app.error_codes import ErrorCode
from app.errors import Malformed
from app.schemas.progress import Priority
from app.services.jobs.idempotency import Replayed, Submission

# Visible ASCII. Other keys get 400 (not 422), so the limits are given in the schema only.
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_Key = Annotated[str, Field(json_schema_extra={"minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"})]
_KEY_DESCRIPTION = (
    "A text chosen by the client, stored for 24 hours. The same key with the same request returns the same response "
    "with `Idempotency-Replayed: true`; with another request, 422. Not accepted for inline responses of `/generate`."
)


async def read_submission(
    request: Request,
    services: ServicesDep,
    caller: CallerDep,
    priority: Annotated[Priority, Query()] = 0,
    idempotency_key: Annotated[_Key | None, Header(description=_KEY_DESCRIPTION)] = None,
) -> Submission:
    """Return the request's priority, idempotency key and caller.

    Raises:
        Malformed: The key is empty, too long or not visible ASCII.
        Replayed: The same request with this key has been answered before.
        Invalid: The key belongs to another request.
    """
    if idempotency_key is None:
        return Submission(priority, caller=caller)
    if not _KEY.fullmatch(idempotency_key) or len(request.headers.getlist("idempotency-key")) > 1:
        raise Malformed(
            "Idempotency-Key must be 1 to 255 visible ASCII characters.", code=ErrorCode.BAD_IDEMPOTENCY_KEY
        )
    body = await request.body()
    fingerprint = await services.pools.bodies.run(lambda: _fingerprint(request, priority, body))
    submission = Submission(priority, idempotency_key, fingerprint, caller)
    await asyncio.to_thread(services.jobs.recall, submission)
    return submission


SubmissionDep = Annotated[Submission, Depends(read_submission)]


def install(app: FastAPI) -> None:
    """Install the handler that replays the response to a request with a known key."""

    @app.exception_handler(Replayed)
    async def on_replayed(_request: Request, replayed: Replayed) -> Response:
        headers = {"Location": replayed.location, "Idempotency-Replayed": "true"}
        return Response(replayed.answer, replayed.status, headers, "application/json")


def _fingerprint(request: Request, priority: int, body: bytes) -> str:
    """Hash the route, its query and the body's JSON, independent of key order and white space.

    The priority counts by its value, other parameters as they are written, if there are any.
    """
    value = load_json(body, JsonBounds.of_bytes(RECIPE_BODY)) if body else None
    query = sorted(item for item in request.query_params.multi_items() if item[0] != "priority")
    asked = [request.method, request.url.path, priority, value, *([query] if query else [])]
    try:
        canonical = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    except RecursionError:  # `dumps` has a slightly lower depth limit than `loads`
        raise Malformed("The body is not valid JSON.", code=ErrorCode.MALFORMED_JSON) from None
    return hashlib.sha256(canonical.encode()).hexdigest()
