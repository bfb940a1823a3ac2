"""The ASGI layer that holds each caller to its requests a minute and at once, before any of a body is read.

Pure ASGI, behind `AccessLayer`, which says who the caller is. Routes that need no key are not counted. Imports no
routes; runs on the event loop.
"""

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.caller import Caller
from app.access.rates import Rate, RateBook
from app.access.shares import Running
from app.api.access.layer import may_be_large
from app.api.problems import respond
from app.errors import RateLimited


class ShareLayer:
    """Answers 429, or passes the request on and adds what is left of the caller's minute to the answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app
        self._rates = RateBook()
        self._running = Running()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        caller: Caller = scope["state"]["caller"]
        if not caller.scopes:  # the route is open to everybody
            await self._app(scope, receive, send)
            return
        try:
            rate = self._rates.count(caller)
            with self._running.hold(caller.id, 1, caller.shares.concurrent_requests, "requests"):
                await self._app(scope, receive, send if rate is None else _with_headers(send, rate))
        except RateLimited as error:
            response = respond(Request(scope), error)
            if may_be_large(scope):
                response.headers["Connection"] = "close"  # nothing reads the rest
            await response(scope, receive, send)


def _with_headers(send: Send, rate: Rate) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            for name, value in rate.headers().items():
                headers.setdefault(name, value)
        await send(message)

    return add
