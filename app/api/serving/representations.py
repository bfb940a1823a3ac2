"""Three ASGI layers between the API keys and the routes: `HEAD`, gzip, and entity tags of JSON.

A route answers `GET` with the whole body, and these layers make of it what the request asks for. Files, archives and
reports have tags, and images and archives ranges, of their own (`app/api/responses.py`), which pass unchanged. Imports
no routes and no services; runs on the event loop, and compresses large bodies on a thread.

**Source**: RFC 9110 sections 8.8.3 (weak tags: equal for all codings of one text), 9.3.2 (`HEAD`), 13.1.2 and 15.4.5.
"""

import asyncio
import gzip
import hashlib
import re
from functools import partial

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Shorter bodies fit into a network packet as they are.
_LEAST_BYTES = 1_000
# Level 5 makes JSON 2 % larger than level 9, in a third of the time.
_LEVEL = 5
# Bodies from this size on, in bytes, are compressed on a thread: 64 kB take about a millisecond.
_ON_THREAD_BYTES = 65_536
_JSON_TYPES = ("application/json", "application/ld+json")
_COMPRESSED_TYPES = (*_JSON_TYPES, "application/problem+json", "text/html", "text/css", "text/javascript")
# Fields that describe the body, which a 304 does not have.
_OF_THE_BODY = ("content-length", "content-type", "content-encoding")
_REFUSED = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*")


def with_representations(app: ASGIApp) -> ASGIApp:
    """Return an application whose answers have the three layers."""
    return HeadRequests(Compression(JsonTags(app)))


class _HeadSent(Exception):
    """The head of the answer was sent; the rest is not wanted."""


class HeadRequests:
    """Answers `HEAD` with the head that `GET` would have, and ends the route where the body would begin."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application that knows only `GET`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            else:
                await send({"type": "http.response.body", "body": b""})
                raise _HeadSent  # event streams and archives end too

        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, send_head)
        except* _HeadSent:
            pass
        finally:
            scope["route"] = asked.get("route")  # for the log and the metrics


class JsonTags:
    """Gives JSON answers of `GET` a weak entity tag, the hash of their text; 304 if `If-None-Match` names it."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application whose JSON answers are single messages."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] == "GET":
            send = _Tagging(Headers(scope=scope).get("if-none-match", ""), send)
        await self._app(scope, receive, send)


class _Tagging:
    """The way of one answer: its head waits until its body is known."""

    def __init__(self, known: str, send: Send) -> None:
        self._known = {tag.strip().removeprefix("W/") for tag in known.split(",")}
        self._send = send
        self._head: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _needs_tag(message):
            self._head = message
            return
        head, self._head = self._head, None
        if head is None:
            await self._send(message)
        elif message.get("more_body", False):  # a stream, of which only a part is known
            await self._send(head)
            await self._send(message)
        else:
            await self._send_tagged(head, message)

    async def _send_tagged(self, head: Message, message: Message) -> None:
        headers = MutableHeaders(raw=head["headers"])
        tag = f'"{hashlib.sha256(message.get("body", b"")).hexdigest()[:32]}"'
        headers["etag"] = f"W/{tag}"
        headers.setdefault("cache-control", "private, no-cache")  # kept, but asked for again each time
        if tag in self._known or "*" in self._known:
            kept = [(name, value) for name, value in head["headers"] if name.decode("latin-1") not in _OF_THE_BODY]
            head, message = {**head, "status": 304, "headers": kept}, {**message, "body": b""}
        await self._send(head)
        await self._send(message)


def _needs_tag(head: Message) -> bool:
    headers = Headers(raw=head["headers"])
    return (
        head["status"] == 200
        and _media_type(headers) in _JSON_TYPES
        and "etag" not in headers
        and headers.get("cache-control") != "no-store"
    )


class Compression:
    """Sends texts in gzip to clients that accept it; never parts, images, archives or events.

    A strong tag of a text becomes weak, because the bytes are others. A text that is served in ranges stays as it is:
    its ranges are of the text.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application; only answers in a single message are compressed."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            send = _Compressing(_accepts_gzip(Headers(scope=scope)), send)
        await self._app(scope, receive, send)


class _Compressing:
    """The way of one answer."""

    def __init__(self, is_accepted: bool, send: Send) -> None:
        self._is_accepted = is_accepted
        self._send = send
        self._head: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_text(message):
            MutableHeaders(raw=message["headers"]).add_vary_header("Accept-Encoding")
            if self._is_accepted:
                self._head = message
                return
        head, self._head = self._head, None
        if head is not None:
            body = message.get("body", b"")
            if len(body) >= _LEAST_BYTES and not message.get("more_body", False):
                message = {**message, "body": await _compress(body, MutableHeaders(raw=head["headers"]))}
            await self._send(head)
        await self._send(message)


async def _compress(body: bytes, headers: MutableHeaders) -> bytes:
    """Return a body in gzip, and describe it in the head of its answer."""
    compress = partial(gzip.compress, body, _LEVEL, mtime=0)
    packed = await asyncio.to_thread(compress) if len(body) >= _ON_THREAD_BYTES else compress()
    headers["content-encoding"] = "gzip"
    headers["content-length"] = str(len(packed))
    if "etag" in headers:
        headers["etag"] = f"W/{headers['etag'].removeprefix('W/')}"
    return packed


def _is_text(head: Message) -> bool:
    """Return whether an answer gains by compression, and is not served in ranges."""
    headers = Headers(raw=head["headers"])
    is_whole = head["status"] != 206 and "accept-ranges" not in headers
    return is_whole and "content-encoding" not in headers and _media_type(headers) in _COMPRESSED_TYPES


def _accepts_gzip(headers: Headers) -> bool:
    """Return whether `Accept-Encoding` names gzip, and not with the weight 0."""
    for part in headers.get("accept-encoding", "").lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() in ("gzip", "x-gzip"):
            return _REFUSED.fullmatch(weight) is None
    return False


def _media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()
