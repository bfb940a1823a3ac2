import asyncio
import contextlib

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from app.api.middleware import BodyLimits, HttpMiddleware
from app.api.serving.draining import Draining
from app.api.serving.refusals import BURST_S, MAX_WAIT_S, RefusalBook, TooManyRefusals

A, B = "192.0.2.1", "192.0.2.2"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def test_an_address_waits_for_what_it_owes_beyond_the_burst_and_others_do_not() -> None:
    book = RefusalBook(0.1, clock=Clock())

    book.charge(A, BURST_S + 0.2)

    assert book.wait_s(A) == pytest.approx(2.0)
    assert book.wait_s(B) == 0


def test_a_burst_is_free() -> None:
    book = RefusalBook(0.1, clock=Clock())

    book.charge(A, BURST_S)

    assert book.wait_s(A) == 0


def test_a_debt_is_paid_as_time_passes() -> None:
    clock = Clock()
    book = RefusalBook(0.1, clock=clock)
    book.charge(A, BURST_S + 0.2)

    clock.now += 1.5

    assert book.wait_s(A) == pytest.approx(0.5)


def test_no_debt_takes_longer_than_a_minute_to_pay() -> None:
    book = RefusalBook(0.05, clock=Clock())

    for _ in range(1_000):
        book.charge(A, 5.0)

    assert book.wait_s(A) == pytest.approx(60.0)


def test_a_share_of_zero_slows_nobody_down() -> None:
    book = RefusalBook(0, clock=Clock())

    book.charge(A, 100.0)

    assert book.wait_s(A) == 0


def test_a_client_without_an_address_is_never_charged() -> None:
    book = RefusalBook(0.1, clock=Clock())

    book.charge("", 100.0)

    assert book.wait_s("") == 0


def test_of_very_many_addresses_those_that_owe_most_are_remembered() -> None:
    book = RefusalBook(0.1, clock=Clock())
    book.charge(A, 1.0)

    for number in range(10_001):
        book.charge(f"10.0.{number // 256}.{number % 256}", 0.3)

    assert book.wait_s(A) > 0
    assert book.wait_s("10.0.0.0") == 0


def test_requests_of_an_indebted_address_are_served_one_at_a_time() -> None:
    book = RefusalBook(1.0, clock=Clock())
    book.charge(A, BURST_S + 0.01)
    at_once, most = 0, 0

    async def one() -> None:
        nonlocal at_once, most
        async with book.turn(A):
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0)
            at_once -= 1

    async def several() -> None:
        await asyncio.gather(*(one() for _ in range(5)))

    asyncio.run(several())

    assert most == 1


def test_a_request_that_would_wait_too_long_is_refused_and_the_turn_is_free_again() -> None:
    clock = Clock()
    book = RefusalBook(0.05, clock=clock)
    book.charge(A, 1.0)

    async def ask() -> None:
        async with book.turn(A):
            pass

    with pytest.raises(TooManyRefusals) as caught:
        asyncio.run(ask())
    assert caught.value.retry_after_s == pytest.approx((1.0 - BURST_S) / 0.05)

    clock.now += caught.value.retry_after_s
    asyncio.run(asyncio.wait_for(ask(), MAX_WAIT_S))


def test_a_client_that_leaves_while_it_waits_leaves_its_turn_to_the_next() -> None:
    clock = Clock()
    book = RefusalBook(0.1, clock=clock)
    book.charge(A, BURST_S + 0.5)

    async def leave_and_ask() -> None:
        async def ask() -> None:
            async with book.turn(A):
                pass

        left = asyncio.ensure_future(ask())
        await asyncio.sleep(0)
        left.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await left
        clock.now += 10
        await asyncio.wait_for(ask(), MAX_WAIT_S)

    asyncio.run(leave_and_ask())


async def _refusing(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body and answer with the status that the path names."""
    while (await receive()).get("more_body", False):
        pass
    start: Message = {"type": "http.response.start", "status": int(scope["path"][1:]), "headers": []}
    await send(start)
    await send({"type": "http.response.body", "body": b""})


def _asked(book: RefusalBook, *requests: tuple[str, bytes]) -> list[httpx.Response]:
    app = HttpMiddleware(_refusing, body=BodyLimits(), draining=Draining(), refusals=book)

    async def ask() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app, client=(A, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
            return [await client.post(path, content=body) for path, body in requests]

    return asyncio.run(ask())


class _Charges(RefusalBook):
    """Remembers who was charged."""

    def __init__(self) -> None:
        super().__init__(0.05, clock=Clock())
        self.charged: list[str] = []

    def charge(self, address: str, cost_s: float) -> None:
        assert cost_s > 0
        self.charged.append(address)


@pytest.mark.parametrize(
    ("path", "num_bytes", "is_charged"),
    [
        ("/413", 100_000, True),
        ("/422", 100_000, True),
        ("/422", 1_000, False),  # a small mistake
        ("/201", 100_000, False),
        ("/503", 100_000, False),  # the node's fault
    ],
)
def test_large_refused_requests_are_charged_alone(path: str, num_bytes: int, is_charged: bool) -> None:
    book = _Charges()

    _asked(book, (path, b"x" * num_bytes))

    assert book.charged == ([A] if is_charged else [])


def test_an_address_that_owes_too_much_gets_429_for_large_bodies_and_answers_for_the_rest() -> None:
    book = RefusalBook(0.05, clock=Clock())
    book.charge(A, 1.0)

    refused, read = _asked(book, ("/201", b"x" * 100_000), ("/201", b"x"))

    assert refused.status_code == 429
    assert refused.json()["code"] == "rate_limited"
    assert refused.headers["retry-after"] == "15"
    assert refused.headers["connection"] == "close"
    assert read.status_code == 201
