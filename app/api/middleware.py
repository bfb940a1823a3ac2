"""The ASGI layer around all others: request ids, patience with bodies, turns, the way out, one form for every error.

Pure ASGI: `BaseHTTPMiddleware` would hide that a client has left. Imports no routes. Runs on the event loop. Only
`app/api/serving/browsers.py` is around it, and adds headers.
"""

import asyncio
import contextlib
import logging
import math
import time
import uuid
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import PROBLEM_MEDIA_TYPE, problem_body
from app.api.serving.accepted_work import IS_CHARGED, AcceptedWorkBook
from app.api.serving.draining import RETRY_AFTER_S, Draining
from app.api.serving.observed import CLIENT_LEFT, describe, observe, record
from app.api.serving.precedence import Precedence, asks_for_many
from app.api.serving.refusals import RefusalBook, TooManyRefusals
from app.logs.context import ID, JOB_HEADER, REQUEST_HEADER, handling
from app.metrics.http import Answered, HttpMetrics
from app.tracing.spans import NO_TRACING, Span, Tracing

log = logging.getLogger("foxhound.access")

# Errors that the framework or the server answers without us, and the words that clients switch on.
_CODES = {400: "malformed_request", 404: "not_found", 405: "method_not_allowed", 408: "body_too_slow"}
_CODES |= {413: "payload_too_large", 415: "unsupported_media_type", 416: "range_not_satisfiable", 429: "rate_limited"}
_CODES |= {503: "unavailable"}
_DETAILS = {
    405: "This path does not take this method; the header Allow names those that it takes.",
    408: "The body came too slowly, or stopped; send it again.",
    413: "The body is larger than this route accepts.",
    415: "Compressed bodies are not accepted.",
    416: "The range lies outside the file.",
    429: "Too many large requests came from this address. Correct what was refused, and send the next one later.",
    500: "The service failed on this request; its log has the reason under the request id.",
    503: "The service is shutting down; send the request again in a moment.",
}
_CLOSING = (408, 413, 415, 429, 503)  # the rest of the body is not read, or no request is taken any more
# Answered until the process ends: it is alive, and must not be killed for being on its way out.
_LIVENESS = "/livez"
# Answered too: no page could read the 503 to its request without the answer to the preflight.
_PREFLIGHT = "OPTIONS"
# What is read of a refused request, so that its client is not interrupted while sending: its body, within bounds.
_REFUSED_BODY_BYTES = 1_000_000
_REFUSED_BODY_S = 1.0
# Requests with bodies up to this size cost their address nothing and never wait: mistakes of people are small.
_SMALL_BODY_BYTES = 65_536
# Seconds for each byte of a refused body that its address pays at most: on a loaded node more of the time is waiting.
# To receive and count a byte takes about 10 ns, to decode one of a hostile image up to 50.
_MAX_COST_PER_BYTE_S = 50e-9


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How slowly a body may arrive: no longer silence, and on average no lower rate.

    Every byte buys a client the time that it would take at the least rate, up to the longest silence in all. So a body
    may take as long as its size demands, and one byte now and then holds nothing.

    Attributes:
        silence_s: Longest time without a byte, > 0.
        min_rate: Bytes a second, > 0.
    """

    silence_s: float = 30.0
    min_rate: float = 1_000.0


class HttpMiddleware:
    """Wraps the application; answers nothing itself but slow and compressed bodies, and all while the service stops."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        body: BodyLimits,
        draining: Draining,
        refusals: RefusalBook | None = None,
        accepted: AcceptedWorkBook | None = None,
        precedence: Precedence | None = None,
        access_level: int = logging.INFO,
        is_internal: bool = False,
        metrics: HttpMetrics | None = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """Wrap `app`.

        Args:
            app: Answers.
            body: How slowly bodies may arrive.
            draining: Whether requests are still taken.
            refusals: What the refused requests of each address cost; None: nobody is slowed down.
            accepted: What the accepted requests of each address cost that parse large texts; None: as before.
            precedence: Lets small requests go first; None: one with the usual times.
            access_level: Severity under which requests are logged.
            is_internal: Whether this node's worker is the client, which says for what job it asks.
            metrics: Counts the requests; None: nothing does.
            tracing: Makes a span of each request.
        """
        self._app = app
        self._body = body
        self._draining = draining
        self._refusals = refusals or RefusalBook(0)
        self._accepted = accepted or AcceptedWorkBook(0)
        self._precedence = precedence or Precedence()
        self._access_level = access_level
        self._is_internal = is_internal
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._body, self._precedence)
        self._accepted.note(exchange.address)
        if self._metrics is not None:
            self._metrics.begin()
        job = exchange.id_of(JOB_HEADER) if self._is_internal else ""
        parent = exchange.header(b"traceparent").decode("latin-1")
        ids = handling(request=exchange.request_id, job=job)
        with ids, self._tracing.span("request", {}, kind="server", parent=parent) as span:
            await self._handle(scope, exchange, span)

    async def _handle(self, scope: Scope, exchange: "_Exchange", span: Span) -> None:
        try:
            await self._answer(scope, exchange)
        except ClientDisconnect:
            exchange.note_left()
            log.info("The client has left.")
        except asyncio.CancelledError:
            if not self._draining.is_refusing:
                raise
            if not exchange.is_started:  # else the server closes the connection, and the client sees a cut answer
                await exchange.answer(503)
        except Exception:
            log.exception("The request failed.")
            if not exchange.is_started:
                await exchange.answer(500)
        finally:
            if exchange.is_refused:
                self._refusals.charge(exchange.address, exchange.cost_s)
            elif exchange.is_charged:
                self._accepted.charge(exchange.address, exchange.cost_s)
            answered = exchange.answered()
            if self._metrics is not None:
                self._metrics.end(answered)
            record(answered, self._access_level)
            describe(span, answered)

    async def _answer(self, scope: Scope, exchange: "_Exchange") -> None:
        if exchange.header(b"content-encoding") not in (b"", b"identity"):
            await exchange.answer(415)
        elif self._draining.is_refusing and scope["path"] != _LIVENESS and scope["method"] != _PREFLIGHT:
            await exchange.skip_body()
            await exchange.answer(503)
        elif exchange.may_be_large:
            await self._answer_in_turn(scope, exchange)
        elif asks_for_many(scope["query_string"]):
            await self._precedence.give_way()
            await self._app(scope, exchange.receive, exchange.send)
        else:
            with self._precedence.small():
                await self._app(scope, exchange.receive, exchange.send)

    async def _answer_in_turn(self, scope: Scope, exchange: "_Exchange") -> None:
        """Pass on a large request once its address owes nothing for earlier ones, and after small ones."""
        try:
            async with self._refusals.turn(exchange.address), self._accepted.turn(exchange.address):
                await self._precedence.give_way()
                exchange.end_wait()
                await self._app(scope, exchange.receive, exchange.send)
        except TooManyRefusals as error:
            await exchange.answer(429, {"retry-after": str(math.ceil(error.retry_after_s))})


class _Exchange:
    """One request and its answer on their way through the middleware."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, body: BodyLimits, precedence: Precedence) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._began = time.monotonic()
        self._body = body
        self._precedence = precedence
        self._patience_s: float | None = body.silence_s  # None: the body is complete
        self._replaces_answer = False
        self._status = 0
        self._body_bytes = 0
        self._sent_bytes = 0
        self._resumed_at = self._began
        self._processing_s = 0.0
        self.is_started = False
        self.request_id = self.id_of(REQUEST_HEADER) or uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = self.request_id

    def header(self, name: bytes) -> bytes:
        """Return a request header's value in lower case; empty if it is not there."""
        headers: list[tuple[bytes, bytes]] = self._scope["headers"]
        return next((value.strip().lower() for key, value in headers if key == name), b"")

    def id_of(self, name: str) -> str:
        """Return the id that a header carries; empty if it carries none, or something else."""
        headers: list[tuple[bytes, bytes]] = self._scope["headers"]
        wanted = name.lower().encode()
        value = next((value.decode("latin-1") for key, value in headers if key == wanted), "")
        return value if ID.fullmatch(value) else ""

    @property
    def address(self) -> str:
        """The client's address, as a trusted proxy reports it; empty for a Unix socket."""
        client = self._scope.get("client")
        return str(client[0]) if client else ""

    @property
    def may_be_large(self) -> bool:
        """Whether the request's head announces a large body, or one of unknown length."""
        return self._announced_bytes > _SMALL_BODY_BYTES or bool(self.header(b"transfer-encoding"))

    @property
    def _announced_bytes(self) -> int:
        return int(self.header(b"content-length") or 0)  # the parser has checked that it is a number

    @property
    def is_refused(self) -> bool:
        """Whether a large request was refused, for a reason other than its address's debt."""
        return self._is_large and 400 <= self._status < 500 and self._status != 429

    @property
    def is_charged(self) -> bool:
        """Whether a large request is one of those that cost their address something when they are accepted."""
        return self._is_large and bool(self._scope["state"].get(IS_CHARGED)) and self._status < 400

    @property
    def cost_s(self) -> float:
        """Seconds that the request took, without those in which its body was awaited."""
        elapsed_s = self._processing_s + time.monotonic() - self._resumed_at
        return min(elapsed_s, self._num_bytes * _MAX_COST_PER_BYTE_S)

    @property
    def _num_bytes(self) -> int:
        return max(self._body_bytes, self._announced_bytes)

    @property
    def _is_large(self) -> bool:
        return self._num_bytes > _SMALL_BODY_BYTES

    def end_wait(self) -> None:
        """Leave the time that has passed out of the request's cost: it waited for its turn."""
        self._resumed_at = time.monotonic()

    async def receive(self) -> Message:
        """Hand the body on; when it is too slow, tell the application that the client has left."""
        if self._patience_s is None:
            return await self._receive()
        self._processing_s += time.monotonic() - self._resumed_at
        if self.may_be_large:
            await self._precedence.give_way()
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._patience_s):
                message = await self._receive()
        except TimeoutError:
            self._patience_s = None
            if not self.is_started:
                await self.answer(408)
            return {"type": "http.disconnect"}
        finally:
            self._resumed_at = time.monotonic()
        self._body_bytes += len(message.get("body", b""))
        # Time that the application spends between two calls is not the client's.
        left_s = self._patience_s - (self._resumed_at - began) + len(message.get("body", b"")) / self._body.min_rate
        self._patience_s = min(left_s, self._body.silence_s) if message.get("more_body", False) else None
        return message

    async def skip_body(self) -> None:
        """Read what a client sends to whom nothing but a refusal is said, for a moment."""
        num_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REFUSED_BODY_S):
                while (message := await self._receive()).get("more_body", False) and num_bytes < _REFUSED_BODY_BYTES:
                    num_bytes += len(message.get("body", b""))

    async def send(self, message: Message) -> None:
        """Hand the answer on; an error without our form gets it."""
        if self._replaces_answer:
            return
        if message["type"] != "http.response.start":
            self._sent_bytes += len(message.get("body", b""))
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
        await self._send(message)

    async def answer(self, status: int, headers: dict[str, str] | None = None) -> None:
        """Send a problem instead of what the application would say."""
        code = _CODES.get(status, "internal_error" if status >= 500 else "request_refused")
        phrase = HTTPStatus(status).phrase
        detail = _DETAILS.get(status, f"{phrase}.")
        body = problem_body(self._scope, status=status, title=phrase, detail=detail, code=code)
        fields = {"content-type": PROBLEM_MEDIA_TYPE, "content-length": str(len(body)), **(headers or {})}
        if status == 503:
            fields.setdefault("retry-after", str(RETRY_AFTER_S))
        start: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
        }
        if status in _CLOSING:
            start["headers"].append((b"connection", b"close"))
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})
        self._replaces_answer = True

    def note_left(self) -> None:
        """Record that the client left: the framework has answered the exception with a 500 that nobody reads."""
        if self._status >= 500:
            self._status = CLIENT_LEFT

    def answered(self) -> Answered:
        """Return what is counted, logged and traced of the exchange."""
        seconds = time.monotonic() - self._began
        return observe(self._scope, self._status, seconds=seconds, received=self._body_bytes, sent=self._sent_bytes)
