"""The outermost ASGI layer: request ids, deadlines for bodies, and one form for every error.

Pure ASGI on purpose: `BaseHTTPMiddleware` would hide from routes that a client has left. Knows nothing of
routes; runs on the event loop.
"""

import asyncio
import logging
import re
import time
import uuid
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import PROBLEM_MEDIA_TYPE, problem_body

log = logging.getLogger("foxhound.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Errors that the framework or the server answers without us, and the words that clients switch on.
_CODES = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed", 408: "body_too_slow"}
_CODES |= {413: "payload_too_large", 415: "unsupported_media_type", 416: "range_not_satisfiable"}
_DETAILS = {
    408: "The body did not arrive in time.",
    413: "The body is larger than this route accepts.",
    415: "Compressed bodies are not accepted.",
    416: "The range lies outside the file.",
    500: "The service failed on this request; its log has the reason under the request id.",
}


class Edge:
    """Wraps the application; answers nothing itself but slow and compressed bodies."""

    def __init__(self, app: ASGIApp, *, body_timeout_s: float) -> None:
        """Wrap `app`; a request's body must arrive whole within `body_timeout_s`."""
        self._app = app
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._body_timeout_s)
        encoding = exchange.header(b"content-encoding")
        if encoding not in (b"", b"identity"):
            await exchange.answer(415)
            return
        try:
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            log.info("request %s: the client has left", exchange.request_id)
        except Exception:
            log.exception("request %s failed", exchange.request_id)
            if not exchange.is_started:
                await exchange.answer(500)
        finally:
            exchange.record()


class _Exchange:
    """One request and its answer on their way through the edge."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_timeout_s: float) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._began = time.monotonic()
        self._body_deadline: float | None = self._began + body_timeout_s
        self._replaces_answer = False
        self._status = 0
        self.is_started = False
        asked = self.header(b"x-request-id").decode("latin-1")
        self.request_id = asked if REQUEST_ID.fullmatch(asked) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.request_id

    def header(self, name: bytes) -> bytes:
        """Return a request header's value in lower case; empty if it is not there."""
        headers: list[tuple[bytes, bytes]] = self._scope["headers"]
        return next((value.strip().lower() for key, value in headers if key == name), b"")

    async def receive(self) -> Message:
        """Hand the body on; when it is too slow, tell the application that the client has left."""
        if self._body_deadline is None:
            return await self._receive()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + self._time_left()):
                message = await self._receive()
        except TimeoutError:
            self._body_deadline = None
            await self.answer(408)
            return {"type": "http.disconnect"}
        if not message.get("more_body", False):
            self._body_deadline = None
        return message

    async def send(self, message: Message) -> None:
        """Hand the answer on; an error without our form gets it."""
        if self._replaces_answer:
            return
        if message["type"] != "http.response.start":
            await self._send(message)
            return
        headers = MutableHeaders(raw=message["headers"])
        is_ours = message["status"] < 400 or headers.get("content-type", "").startswith(PROBLEM_MEDIA_TYPE)
        if not is_ours:
            kept = {name: headers[name] for name in ("allow", "content-range", "retry-after") if name in headers}
            await self.answer(message["status"], kept)
            return
        self.is_started = True
        self._status = message["status"]
        headers["x-request-id"] = self.request_id
        headers["x-content-type-options"] = "nosniff"
        await self._send(message)

    async def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        """Send a problem instead of what the application would say."""
        code = _CODES.get(status, "internal_error" if status >= 500 else "request_refused")
        phrase = HTTPStatus(status).phrase
        detail = _DETAILS.get(status, f"{phrase}.")
        body = problem_body(self._scope, status=status, title=phrase, detail=detail, code=code)
        fields = {"content-type": PROBLEM_MEDIA_TYPE, "content-length": str(len(body)), **(headers or {})}
        start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
        }
        if status in (408, 413, 415):  # the rest of the body is not read
            start["headers"].append((b"connection", b"close"))
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})
        self._replaces_answer = True

    def record(self) -> None:
        """Log the exchange; neither query nor headers, which may hold what users wrote."""
        elapsed_ms = (time.monotonic() - self._began) * 1000
        path = self._scope["path"].encode("unicode_escape").decode()[:200]
        log.info("%s %s %d %.1f ms %s", self._scope["method"], path, self._status, elapsed_ms, self.request_id)

    def _time_left(self) -> float:
        return max((self._body_deadline or 0.0) - time.monotonic(), 0.0)
