"""Who sends large recipes one after the other waits while others are served, and only then."""

import asyncio
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from app.api.middleware import BodyLimits, HttpMiddleware
from app.api.parsing.json_bodies import JsonRoute
from app.api.serving.accepted_work import PRESENT_S, AcceptedWorkBook
from app.api.serving.draining import Draining
from app.api.serving.refusals import BURST_S, MAX_WAIT_S
from app.config import Settings
from app.services.process.thread_pools import WorkPool

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(clock: Clock) -> AcceptedWorkBook:
    book = AcceptedWorkBook(0.1, clock=clock)
    book.note(A)
    book.charge(A, BURST_S + 0.2)
    return book


def test_an_address_that_is_alone_never_waits(book: AcceptedWorkBook) -> None:
    book.note(A)

    assert book.wait_s(A) == 0


def test_an_address_waits_while_others_are_served(book: AcceptedWorkBook) -> None:
    book.note(B)

    assert book.wait_s(A) == pytest.approx(2.0)
    assert book.wait_s(B) == 0


def test_an_address_in_debt_sees_others_between_its_own_requests(book: AcceptedWorkBook) -> None:
    for address in (B, A, A, C, A, A):
        book.note(address)

    assert book.wait_s(A) == pytest.approx(2.0)


def test_an_address_waits_no_more_once_the_others_are_gone(book: AcceptedWorkBook, clock: Clock) -> None:
    book.note(B)
    clock.now += PRESENT_S
    book.note(A)

    assert book.wait_s(A) == 0


class _Body(BaseModel):
    texts: list[str]


class _Charges(AcceptedWorkBook):
    """Remembers who was charged."""

    def __init__(self) -> None:
        super().__init__(0.05, clock=Clock())
        self.charged: list[str] = []

    def charge(self, address: str, cost_s: float) -> None:
        assert cost_s > 0
        self.charged.append(address)


def _app() -> FastAPI:
    app = FastAPI()
    app.router.route_class = JsonRoute
    app.state.settings = Settings(_env_file=None)
    app.state.services = SimpleNamespace(pools=SimpleNamespace(bodies=WorkPool("bodies", num_threads=1, max_waiting=1)))

    @app.post("/texts", max_body_size=2_000_000)
    def read_texts(body: _Body) -> int:
        return len(body.texts)

    @app.post("/file")
    async def read_file() -> None:
        pass

    return app


@pytest.mark.parametrize(
    ("path", "num_chars", "is_charged"),
    [
        ("/texts", 100_000, True),
        ("/texts", 1_000, False),
        ("/file", 100_000, False),  # no text is parsed
    ],
)
def test_large_accepted_texts_are_charged_alone(path: str, num_chars: int, is_charged: bool) -> None:
    book = _Charges()
    app = HttpMiddleware(_app(), body=BodyLimits(), draining=Draining(), accepted=book)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(A, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return await client.post(path, json={"texts": ["x" * num_chars]})

    assert asyncio.run(ask()).status_code == 200
    assert book.charged == ([A] if is_charged else [])


def test_a_request_that_waits_is_served_in_the_end() -> None:
    book = AcceptedWorkBook(1.0)
    for address in (A, B):
        book.note(address)
    book.charge(A, BURST_S + 0.01)

    async def ask() -> None:
        async with book.turn(A):
            pass

    asyncio.run(asyncio.wait_for(ask(), MAX_WAIT_S))
