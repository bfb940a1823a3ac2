"""Pieces of large bodies wait for small requests, but not for ever, and not for those that stream or wait."""

import asyncio

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from app.api.middleware import BodyLimits, HttpMiddleware
from app.api.serving.draining import Draining
from app.api.serving.precedence import Precedence
from testing.waiting import PATIENCE_S


def test_a_large_request_goes_on_once_the_last_small_one_is_answered() -> None:
    async def main() -> None:
        precedence = Precedence(young_s=PATIENCE_S, max_wait_s=PATIENCE_S)
        with precedence.small():
            with precedence.small():
                waiting = asyncio.ensure_future(precedence.give_way())
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.wait_for(waiting, PATIENCE_S)

    asyncio.run(main())


def test_nothing_waits_without_a_small_request() -> None:
    async def main() -> None:
        precedence = Precedence(max_wait_s=PATIENCE_S)
        piece = precedence.give_way()
        try:
            piece.send(None)
        except StopIteration:
            return
        raise AssertionError("it waited")

    asyncio.run(main())


def test_a_large_request_waits_for_the_next_small_one_of_a_client_that_goes_on() -> None:
    async def main() -> None:
        precedence = Precedence(young_s=PATIENCE_S, linger_s=PATIENCE_S, max_wait_s=0.01)
        with precedence.small():
            pass
        waiting = asyncio.ensure_future(precedence.give_way())
        await asyncio.sleep(0)
        assert not waiting.done()
        await waiting

    asyncio.run(main())


def test_a_small_request_that_streams_holds_nothing_back_after_a_moment() -> None:
    async def main() -> None:
        precedence = Precedence(young_s=0.01, max_wait_s=PATIENCE_S)
        with precedence.small():
            await asyncio.wait_for(precedence.give_way(), PATIENCE_S / 2)

    asyncio.run(main())


def test_a_large_request_goes_on_however_many_small_ones_come() -> None:
    async def main() -> None:
        precedence = Precedence(young_s=PATIENCE_S, max_wait_s=0.01)
        with precedence.small():
            await asyncio.wait_for(precedence.give_way(), PATIENCE_S / 2)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("path", "num_bytes", "is_first"),
    [
        ("/large", 200_000, False),
        ("/list?limit=100", 0, False),
        ("/list?cursor=a&limit=21", 0, False),
        ("/list?limit=20", 0, True),
        ("/list?unlimited=100", 0, True),
    ],
)
def test_large_bodies_and_lists_are_read_after_the_answer_to_a_small_request(
    path: str, num_bytes: int, is_first: bool
) -> None:
    order: list[str] = []
    small_begins, other_comes = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/small":
            small_begins.set()
            await other_comes.wait()
            await asyncio.sleep(0.01)
            order.append("small")
        else:
            while (await receive()).get("more_body", False):
                pass
            order.append("other")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        precedence = Precedence(young_s=PATIENCE_S, max_wait_s=PATIENCE_S)
        outer = HttpMiddleware(app, body=BodyLimits(), draining=Draining(), precedence=precedence)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://node") as client:
            small = asyncio.ensure_future(client.get("/small"))
            await asyncio.wait_for(small_begins.wait(), PATIENCE_S)
            other = asyncio.ensure_future(client.post(path, content=b"x" * num_bytes))
            other_comes.set()
            await asyncio.gather(small, other)

    asyncio.run(main())
    assert order == (["other", "small"] if is_first else ["small", "other"])
