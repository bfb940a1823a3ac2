"""The layers around an application that fails: every answer can be read by an allowed page."""

import asyncio

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.middleware import BodyLimits, HttpMiddleware
from app.api.serving.browsers import SAFE_HEADERS, BrowserGuard, BrowserHeaders
from app.api.serving.draining import Draining
from app.api.serving.refusals import RefusalBook
from app.origins import allowed_hosts

APP = "https://app.example"
ORIGIN = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("a fault")


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"who are you?"})


def layers(app: ASGIApp, draining: Draining, book: RefusalBook | None = None) -> ASGIApp:
    origins = frozenset({APP})
    guard = BrowserGuard(app, hosts=allowed_hosts("127.0.0.1", "", "box"), origins=origins)
    return BrowserHeaders(HttpMiddleware(guard, body=BodyLimits(), draining=draining, refusals=book), origins)


def ask(app: ASGIApp, method: str = "POST", **options: object) -> httpx.Response:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("10.0.0.1", 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            return await http.request(method, "/", **{"headers": ORIGIN, **options})  # type: ignore[arg-type]

    return asyncio.run(asked())


@pytest.mark.parametrize(("app", "status"), [(failing, 500), (refusing, 401)])
def test_a_failure_inside_is_a_problem_that_the_page_can_read(app: ASGIApp, status: int) -> None:
    answer = ask(layers(app, Draining()))
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers["access-control-allow-origin"] == APP
    assert SAFE_HEADERS.items() <= dict(answer.headers).items()


def test_a_page_can_read_that_the_node_stops() -> None:
    draining = Draining()
    draining.refuse()
    preflight = ask(layers(failing, draining), "OPTIONS", headers={**ORIGIN, "Access-Control-Request-Method": "POST"})
    answer = ask(layers(failing, draining))
    assert (preflight.status_code, answer.status_code, answer.json()["code"]) == (204, 503, "unavailable")
    assert preflight.headers["access-control-allow-origin"] == answer.headers["access-control-allow-origin"] == APP


def test_a_page_can_read_that_it_is_held_back() -> None:
    now_s = 0.0
    book = RefusalBook(0.001, clock=lambda: now_s)
    book.charge("10.0.0.1", 1.0)
    answer = ask(layers(failing, Draining(), book), content=b" " * 100_000)
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (429, APP)
    assert "Retry-After" in answer.headers["access-control-expose-headers"]
