"""The ASGI layers in front of the routes: one checks API keys, the next holds callers to their shares.

Nothing of a request's body is read before. Pure ASGI, behind the layers that answer browsers' preflight requests, which
have no key. Imports no routes and no SQL; runs on the event loop.
"""

from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.access.authenticator import Authenticator, presented_key
from app.access.caller import Caller, address_id
from app.access.shares import Rate, RateBook, Running
from app.api.access.scopes import ROUTE_NEEDS, Need
from app.api.problems import respond
from app.errors import AppError, Forbidden, RateLimited, Unauthorized

# A refused body up to this size is skipped, so that the connection can be used again, in bytes.
_SKIPPED_BYTES = 65_536


class AccessLayer:
    """Sets `scope["state"]["caller"]`, or answers 401, 403 or 503."""

    def __init__(self, app: ASGIApp, authenticator: Callable[[], Authenticator]) -> None:
        """Wrap an application.

        Args:
            app: Answers requests that are accepted.
            authenticator: Returns the process's; called when the first request is there.
        """
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http":
            try:
                scope.setdefault("state", {})["caller"] = await self._admit(scope)
            except AppError as error:
                await self._refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> Caller:
        """Return the caller of a request that he may send.

        Raises:
            Unauthorized: The request has no valid key and needs one.
            Forbidden: The key lacks the scope.
            DatabaseUnavailable: The key cannot be looked up.
        """
        client = scope.get("client")
        address = str(client[0]) if client else ""
        route = ROUTE_NEEDS.find(scope["method"], scope["path"])
        if route is not None and not route.need:
            return Caller(address_id(address), None, route.need)
        caller = await self._authenticator().identify(presented_key(scope["headers"]), address)
        if route is not None:  # else the router answers that there is no such route
            require(caller, route.need)
        return caller

    async def _refuse(self, error: AppError, scope: Scope, receive: Receive, send: Send) -> None:
        response = respond(Request(scope), error)
        if isinstance(error, Unauthorized):
            response.headers["WWW-Authenticate"] = "Bearer"
        if may_be_large(scope):
            response.headers["Connection"] = "close"  # nothing reads the rest
        await response(scope, receive, send)


class ShareLayer:
    """Answers 429, or passes the request on and adds what is left of the caller's minute to the answer.

    Behind `AccessLayer`, which says who the caller is. Routes that need no key are not counted.
    """

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


def require(caller: Caller, need: Need) -> None:
    """Check that a caller has one of the scopes.

    Raises:
        Forbidden: His key has none of them.
        Unauthorized: He has no key, and needs one for this.
    """
    if any(caller.may(scope) for scope in need):
        return
    names = " or ".join(sorted(need))
    if caller.key_id is None:
        raise Unauthorized(f"This needs an API key with the scope {names}. Send it as `Authorization: Bearer KEY`.")
    raise Forbidden(f"This needs an API key with the scope {names}.", members={"scope": names})


def may_be_large(scope: Scope) -> bool:
    """Return whether a request has more of a body than is worth reading when it is refused."""
    headers = dict(scope["headers"])
    return b"transfer-encoding" in headers or int(headers.get(b"content-length", b"0")) > _SKIPPED_BYTES


def _with_headers(send: Send, rate: Rate) -> Send:
    async def add(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=message["headers"])
            for name, value in rate.headers().items():
                headers.setdefault(name, value)
        await send(message)

    return add
