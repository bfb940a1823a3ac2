"""What browsers may do: hosts that the node answers under, origins that may call it, headers of every answer.

Two layers of pure ASGI. `BrowserHeaders` is the outermost one, so that the answers of all others have its headers.
`BrowserGuard` stands before the application and decides on the request's head alone: it reads no body. Starlette's
`CORSMiddleware` writes all `Access-Control-*` headers. Imports no routes; runs on the event loop.

**Source**: Fetch standard (CORS, `Origin`), W3C Fetch Metadata Request Headers (`Sec-Fetch-Site`), RFC 9110 section
15.5.20 (421).
"""

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import respond
from app.errors import AppError, CrossSiteRefused, HostNotAllowed, Malformed
from app.origins import ANY, AllowedHosts, Host, read_host, read_origin

# Headers of every answer that does not bring its own; a page's own policy allows what the page needs.
SAFE_HEADERS: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
# Methods that change nothing (RFC 9110 section 9.2.1); what a page of another origin may ask for without permission.
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS", "TRACE")
_REQUEST_HEADERS = (
    *("Accept", "Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "If-Range", "Last-Event-ID"),
    *("Prefer", "Range", "X-API-Key", "X-Request-Id"),
)
# What scripts may read besides the headers that they always may, such as Content-Type and Content-Length.
_ANSWER_HEADERS = (
    *("Accept-Ranges", "Allow", "Content-Disposition", "Content-Location", "Content-Range", "ETag"),
    *("Idempotency-Replayed", "Location", "Preference-Applied", "RateLimit", "RateLimit-Policy", "Retry-After"),
    *("WWW-Authenticate", "X-Foxhound-Image-Id", "X-Foxhound-Seed", "X-Request-Id"),
)
# Asked by probes, which use the address even where a proxy hides that the node listens on loopback.
_PROBED = ("/livez", "/readyz")


class BrowserHeaders:
    """The outermost layer: adds `SAFE_HEADERS` to every answer, and those of CORS if any origin is allowed."""

    def __init__(self, app: ASGIApp, origins: frozenset[str]) -> None:
        """Wrap `app`.

        Args:
            app: Answers, and answers preflights too.
            origins: The origins that may read answers, as browsers write them, or `ANY`; none: CORS is off.
        """
        self._app = app
        self._cors = _cors(app, origins)
        is_public = ANY in origins
        self._headers = {**SAFE_HEADERS, **({"cross-origin-resource-policy": "cross-origin"} if is_public else {})}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif self._cors is None:
            await self._app(scope, receive, send_on)
        else:
            await self._cors.simple_response(scope, receive, send_on, request_headers=Headers(scope=scope))


class BrowserGuard:
    """Answers preflights; refuses foreign hosts, and requests by which a page of another origin would change something.

    Clients that are no browsers send neither `Origin` nor `Sec-Fetch-Site`, and pass.
    """

    def __init__(self, app: ASGIApp, *, hosts: AllowedHosts, origins: frozenset[str]) -> None:
        """Wrap `app`.

        Args:
            app: Answers what is not refused.
            hosts: The hosts under which the node answers.
            origins: The origins whose pages may call the node, or `ANY`; none: CORS is off, and preflights are passed
                on.
        """
        self._app = app
        self._hosts = hosts
        self._origins = origins
        self._cors = _cors(app, origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        answer = self._answer(Request(scope)) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)

    def _answer(self, request: Request) -> Response | None:
        """Return the answer to a preflight or a refusal; None if the application answers."""
        if self._cors is not None and _is_preflight(request):
            return self._preflight(request, self._cors)
        refusal = self._refusal(request)
        return None if refusal is None else respond(request, refusal)

    def _preflight(self, request: Request, cors: CORSMiddleware) -> Response:
        """Answer before the host is checked, so that the page can read why its real request is refused."""
        answer = cors.preflight_response(request.headers)
        granted = {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}
        if answer.status_code == 200:
            return Response(status_code=204, headers=granted)
        refused = respond(request, CrossSiteRefused("The node does not allow this origin, method or request header."))
        refused.headers.update(granted)
        return refused

    def _refusal(self, request: Request) -> AppError | None:
        fields = request.headers.getlist("host")
        if not fields and request.scope["http_version"] == "1.0":  # probes of load balancers, never a browser
            host = None
        elif len(fields) != 1 or (host := read_host(fields[0])) is None:
            return Malformed("The request needs one Host header, a name or an address with an optional port.")
        elif not self._hosts.allow(host) and not (host.is_address and request.scope["path"] in _PROBED):
            return HostNotAllowed()
        return CrossSiteRefused() if self._is_cross_site(request, host) else None

    def _is_cross_site(self, request: Request, host: Host | None) -> bool:
        """Return whether a page of an origin that is neither the node's nor allowed may change something by a request.

        `Sec-Fetch-Site` is missing in old browsers, and under names and addresses other than loopback without TLS.
        """
        origins = request.headers.getlist("origin")
        if request.method in _SAFE_METHODS or ANY in self._origins:
            return False
        if len(origins) == 1 and origins[0] in self._origins:
            return False
        if sites := request.headers.getlist("sec-fetch-site"):
            return any(site.strip().lower() not in ("same-origin", "none") for site in sites)
        own = host.origin(request.scope["scheme"]) if host else None
        return any(own is None or read_origin(origin) != own for origin in origins)


def _cors(app: ASGIApp, origins: frozenset[str]) -> CORSMiddleware | None:
    """Return Starlette's CORS layer; credentials are never allowed: keys are sent in a header."""
    if not origins:
        return None
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_METHODS,
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
        allow_private_network=True,  # whose origin the operator has listed may reach a private address as well
    )


def _is_preflight(request: Request) -> bool:
    names = request.headers.keys()
    return request.method == "OPTIONS" and "origin" in names and "access-control-request-method" in names
