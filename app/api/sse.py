"""Server-sent events of one running request: its progress, then its result or its error.

Imports no engine: any coroutine that reports steps can be streamed. Runs on the event loop. FastAPI formats the events;
its own streaming needs generator routes, but here one route selects its response by `Accept` and may still fail with
an ordinary problem.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from app.api.problems import respond
from app.api.serving.draining import RETRY_AFTER_S
from app.errors import AppError, Unavailable
from app.schemas.generations import GenerationProgress

log = logging.getLogger("foxhound.api")

KEEP_ALIVE_S = 10.0
_SHUTTING_DOWN = "The service is shutting down; send the request again in a moment."
# Proxies must neither cache the response nor buffer events.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

OnStep = Callable[[int, int, int], None]


class Progress:
    """The newest step of each image that has not been sent yet.

    A client slower than the steps misses some of them, so no queue builds up.
    """

    def __init__(self, num_images: int) -> None:
        """Track `num_images` images, >= 1."""
        self._num_images = num_images
        self._unsent: dict[int, GenerationProgress] = {}
        self._wakeup = asyncio.Event()

    def report(self, image: int, step: int, steps: int) -> None:
        """Record that the image with this index, from 0, has done `step` of `steps` steps."""
        self._unsent[image] = GenerationProgress(image=image, step=step, steps=steps, num_images=self._num_images)
        self.wake()

    def wake(self) -> None:
        """Wake the waiting coroutine."""
        self._wakeup.set()

    @property
    def is_complete(self) -> bool:
        """Whether every image has a step to send."""
        return len(self._unsent) == self._num_images

    def take(self) -> list[GenerationProgress]:
        """Return the steps to send and forget them."""
        unsent = list(self._unsent.values())
        self._unsent.clear()
        return unsent

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for a step or a wake-up; return False after `timeout_s` seconds without one."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wakeup.wait()
        except TimeoutError:
            return False
        self._wakeup.clear()
        return True


class EventStream(EventSourceResponse):
    """The events of a task, which is cancelled when the response ends, at the latest when the client disconnects."""

    def __init__(self, request: Request, work: asyncio.Task[Any], progress: Progress) -> None:
        """Stream the events of the task `work`, which reports to `progress`."""
        super().__init__(events(request, work, progress), headers=_HEADERS)
        self._request = request
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:  # only a shutdown cancels; a client that disconnects does not
            last = _error_event(self._request, Unavailable(_SHUTTING_DOWN, retry_after_s=RETRY_AFTER_S))
            await send({"type": "http.response.body", "body": last})
            raise
        finally:
            self._work.cancel()


async def stream(
    request: Request, start: Callable[[OnStep], Coroutine[Any, Any, BaseModel]], num_images: int
) -> EventStream:
    """Start the work, and return the stream of its events once the engine has accepted all images.

    Args:
        request: The request to answer.
        start: Returns the work's coroutine, given the function that it reports steps to.
        num_images: Number of images that report, >= 1; each reports step 0 when the engine accepts it.

    Raises:
        AppError: Raised by the work before the stream began; the response has that error's status.
    """
    progress = Progress(num_images)
    work = asyncio.ensure_future(start(progress.report))
    work.add_done_callback(lambda _: progress.wake())
    try:
        while not (work.done() or progress.is_complete):
            await progress.wait()
        if work.done():
            work.result()
    except BaseException:
        work.cancel()
        raise
    return EventStream(request, work, progress)


async def events(
    request: Request, work: asyncio.Task[Any], progress: Progress, keep_alive_s: float = KEEP_ALIVE_S
) -> AsyncIterator[bytes]:
    """Yield the events: progress, comments that keep the connection alive, and finally the result or the error.

    Args:
        request: The request to answer.
        work: Returns a model. It reports its last step before it is done, and its end wakes `progress`.
        progress: The steps that the work reports.
        keep_alive_s: Maximum time without an event, in seconds; then a comment is sent.
    """
    while True:
        is_done = work.done()  # read first, so that the last steps of finished work are still sent
        if steps := progress.take():
            yield b"".join(_event("progress", step.model_dump_json()) for step in steps)
        if is_done:
            break
        if not await progress.wait(keep_alive_s):
            yield KEEPALIVE_COMMENT
    try:
        result: BaseModel = work.result()
    except Exception as error:  # the response has begun, so no handler can report the error
        yield _error_event(request, error)
    else:
        yield _event("result", result.model_dump_json())


def _error_event(request: Request, error: Exception) -> bytes:
    """Return the `error` event with the problem of an ordinary response; `Retry-After` becomes the event's `retry`."""
    known = error if isinstance(error, AppError) else AppError()
    log.warning("%s: %s", known.code, known.detail, exc_info=error.__cause__ or (None if known is error else error))
    answer = respond(request, known, {"kind": "error"})
    retry_after = answer.headers.get("retry-after")
    return format_sse_event(
        event="error",
        data_str=bytes(answer.body).decode(),
        retry=None if retry_after is None else int(retry_after) * 1_000,
    )


def _event(name: str, data: str) -> bytes:
    return format_sse_event(event=name, data_str=data)
