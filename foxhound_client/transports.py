"""Performs the steps of a flow: `Blocking` in the caller's thread, `Awaiting` on the caller's event loop.

The only module of the client that opens connections and sleeps. A failed connection is thrown into the flow, which
decides whether to try again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from foxhound_client.steps import Answer, Close, Emit, Flow, Items, Open, Read, Request, Result, Send, Sleep, Step


@dataclass(frozen=True)
class Returned:
    """A flow has ended with this value."""

    value: Any


def advance(flow: Flow[Any], reply: Any, error: Exception | None) -> Step | Returned:
    """Continue a flow with a reply or an error; return its next step or its result."""
    try:
        return flow.send(reply) if error is None else flow.throw(error)
    except StopIteration as end:
        return Returned(end.value)


def arguments(request: Request) -> dict[str, Any]:
    """Return the arguments of httpx's `build_request` for a request."""
    return {
        "method": request.method,
        "url": request.path,
        "params": dict(request.query) or None,
        "headers": dict(request.headers),
        "content": request.content,
        "data": None if request.form is None else {name: list(values) for name, values in request.form.items()},
        "files": list(request.files) or None,
    }


class Blocking:
    """Performs flows in the caller's thread."""

    def __init__(self, http: httpx.Client, sleep: Callable[[float], None] | None = None) -> None:
        """Use a client of httpx; `sleep` waits for so many seconds, `time.sleep` by default."""
        self.http = http
        self._sleep = sleep or time.sleep

    def run(self, flow: Flow[Result]) -> Result:
        """Run a flow to its end and return its result; items are dropped."""
        items = self._drive(flow)
        while True:
            try:
                next(items)
            except StopIteration as end:
                result: Result = end.value
                return result

    def iterate(self, flow: Items[Any]) -> Iterator[Any]:
        """Yield the items of a flow."""
        return self._drive(flow)

    def _drive(self, flow: Flow[Any]) -> Generator[Any, None, Any]:
        reply: Any = None
        error: Exception | None = None
        opened = _OpenedBlocking(self.http)
        try:
            while not isinstance(step := advance(flow, reply, error), Returned):
                reply, error = None, None
                try:
                    if isinstance(step, Emit):
                        yield step.item
                    elif isinstance(step, Sleep):
                        self._sleep(step.seconds)
                    else:
                        reply = opened.perform(step)
                except httpx.TransportError as problem:
                    error = problem
            return step.value
        finally:
            flow.close()
            opened.close()


class Awaiting:
    """Performs flows on the caller's event loop; files are read and written on it too."""

    def __init__(self, http: httpx.AsyncClient, sleep: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Use a client of httpx; `sleep` waits for so many seconds, `asyncio.sleep` by default."""
        self.http = http
        self._sleep = sleep or asyncio.sleep

    async def run(self, flow: Flow[Result]) -> Result:
        """Run a flow to its end and return its result; items are dropped."""
        result: list[Any] = []
        async for _ in self._drive(flow, result.append):
            pass
        value: Result = result[0]
        return value

    def iterate(self, flow: Items[Any]) -> AsyncIterator[Any]:
        """Yield the items of a flow."""
        return self._drive(flow, lambda _: None)

    async def _drive(self, flow: Flow[Any], on_end: Callable[[Any], None]) -> AsyncIterator[Any]:
        reply: Any = None
        error: Exception | None = None
        opened = _OpenedAwaiting(self.http)
        try:
            while not isinstance(step := advance(flow, reply, error), Returned):
                reply, error = None, None
                try:
                    if isinstance(step, Emit):
                        yield step.item
                    elif isinstance(step, Sleep):
                        await self._sleep(step.seconds)
                    else:
                        reply = await opened.perform(step)
                except httpx.TransportError as problem:
                    error = problem
            on_end(step.value)
        finally:
            flow.close()
            await opened.close()


class _OpenedBlocking:
    """The answer that one flow has opened, if any."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._answer: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def perform(self, step: Send | Open | Read | Close) -> Answer | bytes | None:
        if isinstance(step, Read):
            return next(self._pieces, b"")
        if isinstance(step, Close):
            self.close()
            return None
        answer = self._http.send(self._http.build_request(**arguments(step.request)), stream=isinstance(step, Open))
        if isinstance(step, Open):
            self._answer, self._pieces = answer, answer.iter_raw()
            if answer.status_code < 300:
                return _answer(answer, b"")
            answer.read()
        return _answer(answer, answer.content)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


class _OpenedAwaiting:
    """The answer that one flow has opened, if any."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._answer: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes] | None = None

    async def perform(self, step: Send | Open | Read | Close) -> Answer | bytes | None:
        if isinstance(step, Read):
            return b"" if self._pieces is None else await anext(self._pieces, b"")
        if isinstance(step, Close):
            await self.close()
            return None
        answer = await self._http.send(
            self._http.build_request(**arguments(step.request)), stream=isinstance(step, Open)
        )
        if isinstance(step, Open):
            self._answer, self._pieces = answer, answer.aiter_raw()
            if answer.status_code < 300:
                return _answer(answer, b"")
            await answer.aread()
        return _answer(answer, answer.content)

    async def close(self) -> None:
        if self._answer is not None:
            await self._answer.aclose()
            self._answer = None


def _answer(answer: httpx.Response, content: bytes) -> Answer:
    return Answer(answer.status_code, answer.reason_phrase, answer.headers, content)
