"""Server-sent events of one request under way: how far it has come, then its result or its error.

Knows nothing of engines: whatever reports steps can be watched. Runs on the event loop. FastAPI frames the events;
its own streaming takes generator routes, whereas here one route answers by `Accept`, and can still refuse.
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
# Proxies must neither keep the answer nor hold events back.
_CUT_SHORT = "The service is shutting down; send the request again in a moment."
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

OnStep = Callable[[int, int, int], None]


class Progress:
    """What a client has not been told yet: the newest step of each image and no older one.

    A client slower than the steps skips some, so that nothing queues up for it.
    """

    def __init__(self, num_images: int) -> None:
        """Watch so many images, >= 1."""
        self._num_images = num_images
        self._untold: dict[int, GenerationProgress] = {}
        self._news = asyncio.Event()

    def report(self, image: int, step: int, steps: int) -> None:
        """Note that an image, counted from 0, has done `step` of `steps` steps."""
        self._untold[image] = GenerationProgress(image=image, step=step, steps=steps, num_images=self._num_images)
        self.wake()

    def wake(self) -> None:
        """Wake who waits, for a reason other than a step."""
        self._news.set()

    @property
    def is_complete(self) -> bool:
        """Whether every image has something untold."""
        return len(self._untold) == self._num_images

    def take(self) -> list[GenerationProgress]:
        """Return what is untold, which from now on is told."""
        untold = list(self._untold.values())
        self._untold.clear()
        return untold

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for news; False when none came in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True


class EventStream(EventSourceResponse):
    """The events of a piece of work, which is cancelled when the answer ends: at the latest when the client leaves."""

    def __init__(self, request: Request, work: asyncio.Task[Any], progress: Progress) -> None:
        """Stream the events of `work`, which reports to `progress`."""
        super().__init__(events(request, work, progress), headers=_HEADERS)
        self._request = request
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:  # a client that leaves cancels nothing: the service is shutting down
            last = _error_event(self._request, Unavailable(_CUT_SHORT, retry_after_s=RETRY_AFTER_S))
            await send({"type": "http.response.body", "body": last})
            raise
        finally:
            self._work.cancel()


async def stream(
    request: Request, start: Callable[[OnStep], Coroutine[Any, Any, BaseModel]], num_images: int
) -> EventStream:
    """Start the work, and answer with its events once all its images were taken.

    Args:
        request: Whose answer it is.
        start: Makes the work's coroutine, given what it reports steps to.
        num_images: How many images report, >= 1; each does with step 0 when it is taken.

    Raises:
        AppError: What the work raised before; the answer can still have that status.
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
    """Yield what to send next: progress, comments that keep the connection alive, at last the outcome.

    Args:
        request: Whose answer it is.
        work: Gives a model; its last step is reported before it is done, and that it is done wakes `progress`.
        progress: What it reports to.
        keep_alive_s: Longest silence, in seconds.
    """
    while True:
        is_done = work.done()  # asked first: the last steps of work that is done were reported before
        if told := progress.take():
            yield b"".join(_event("progress", step.model_dump_json()) for step in told)
        if is_done:
            break
        if not await progress.wait(keep_alive_s):
            yield KEEPALIVE_COMMENT
    try:
        result: BaseModel = work.result()
    except Exception as error:  # the answer has begun: nobody else can tell
        yield _error_event(request, error)
    else:
        yield _event("result", result.model_dump_json())


def _error_event(request: Request, error: Exception) -> bytes:
    """Say what an ordinary answer would have said, its `Retry-After` as the event's `retry`."""
    known = error if isinstance(error, AppError) else AppError()
    log.warning("%s: %s", known.code, known.detail, exc_info=error.__cause__ or (None if known is error else error))
    answer = respond(request, known)
    retry_after = answer.headers.get("retry-after")
    return format_sse_event(
        event="error",
        data_str=bytes(answer.body).decode(),
        retry=None if retry_after is None else int(retry_after) * 1_000,
    )


def _event(name: str, data: str) -> bytes:
    return format_sse_event(event=name, data_str=data)
