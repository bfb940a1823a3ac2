"""Server-sent events of one running request: its place and its progress, then its result or its error.

Imports no engine: any coroutine that reports steps can be streamed. Runs on the event loop. FastAPI formats the events;
its own streaming needs generator routes, but here one route selects its response by `Accept` and may still fail with
an ordinary problem.
"""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from app.api.problems import respond
from app.api.serving.draining import RETRY_AFTER_S
from app.errors import AppError, Unavailable
from app.schemas.generations import GenerationProgress, GenerationQueued

log = logging.getLogger("foxhound.api")

KEEP_ALIVE_S = 10.0
_SHUTTING_DOWN = "The service is shutting down; send the request again in a moment."
# Proxies must neither cache the response nor buffer events.
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class EventForm:
    """How steps, the result and an error become events; those of `/generate/events`. Others override it."""

    def steps(self, steps: Sequence[GenerationProgress]) -> bytes:
        """Return the events of steps; empty: none are sent."""
        return b"".join(_event("progress", step.model_dump_json()) for step in steps)

    def queued(self, queued: GenerationQueued) -> bytes:
        """Return the event of a place in the queue; empty: none is sent."""
        return _event("queued", queued.model_dump_json())

    def result(self, result: Any) -> bytes:
        """Return the events of the finished work's result."""
        return _event("result", result.model_dump_json())

    def error(self, request: Request, error: AppError) -> bytes:
        """Return the event of an error: the problem of an ordinary response; `Retry-After` becomes its `retry`."""
        answer = respond(request, error, {"kind": "error"})
        retry_after = answer.headers.get("retry-after")
        return format_sse_event(
            event="error",
            data_str=bytes(answer.body).decode(),
            retry=None if retry_after is None else int(retry_after) * 1_000,
        )


NATIVE = EventForm()


class Progress:
    """The newest step of each image, and the newest place in the queue, that have not been sent yet.

    A client slower than the steps misses some of them, and of their previews, so no queue builds up. A preview that is
    encoded after the next step was reported comes with that step.
    """

    def __init__(self, num_images: int) -> None:
        """Track `num_images` images, >= 1."""
        self._num_images = num_images
        self._newest: dict[int, GenerationProgress] = {}
        self._unsent: set[int] = set()
        self._position: int | None = None
        self._wakeup = asyncio.Event()

    def report(self, image: int, step: int, steps: int, preview: bytes | None = None, /) -> None:
        """Record that the image with this index, from 0, has done `step` of `steps` steps, and a preview of it."""
        before = self._newest.get(image)
        progress = GenerationProgress(
            image=image, step=max(step, before.step if before else 0), steps=steps, num_images=self._num_images
        )
        if preview is not None:
            progress.preview_step, progress.preview_png_b64 = step, base64.b64encode(preview).decode()
        elif before is not None and image in self._unsent:
            progress.preview_step, progress.preview_png_b64 = before.preview_step, before.preview_png_b64
        self._newest[image] = progress
        self._unsent.add(image)
        if step > 0:
            self._position = None  # it waits no more
        self.wake()

    def place(self, position: int) -> None:
        """Record that so many requests go before the first image, which waits."""
        self._position = position
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
        unsent = [self._newest[image] for image in sorted(self._unsent)]
        self._unsent.clear()
        return unsent

    def take_place(self) -> GenerationQueued | None:
        """Return the place to send and forget it."""
        position, self._position = self._position, None
        return None if position is None else GenerationQueued(position=position)

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

    def __init__(self, request: Request, work: asyncio.Task[Any], progress: Progress, form: EventForm = NATIVE) -> None:
        """Stream the events of the task `work`, which reports to `progress`, in a form."""
        super().__init__(events(request, work, progress, form=form), headers=_HEADERS)
        self._request = request
        self._work = work
        self._form = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        try:
            await super().__call__(scope, receive, send)
        except asyncio.CancelledError:  # only a shutdown cancels; a client that disconnects does not
            last = self._form.error(self._request, Unavailable(_SHUTTING_DOWN, retry_after_s=RETRY_AFTER_S))
            await send({"type": "http.response.body", "body": last})
            raise
        finally:
            self._work.cancel()


async def stream(
    request: Request,
    start: Callable[[Progress], Coroutine[Any, Any, Any]],
    num_images: int,
    form: EventForm = NATIVE,
) -> EventStream:
    """Start the work, and return the stream of its events once the engine has accepted all images.

    Args:
        request: The request to answer.
        start: Returns the work's coroutine, given what it reports to.
        num_images: Number of images that report, >= 1; each reports step 0 when the engine accepts it.
        form: Writes the events.

    Raises:
        AppError: Raised by the work before the stream began; the response has that error's status.
    """
    progress = Progress(num_images)
    work = asyncio.ensure_future(start(progress))
    work.add_done_callback(lambda _: progress.wake())
    try:
        while not (work.done() or progress.is_complete):
            await progress.wait()
        if work.done():
            work.result()
    except BaseException:
        work.cancel()
        raise
    return EventStream(request, work, progress, form)


async def events(
    request: Request,
    work: asyncio.Task[Any],
    progress: Progress,
    keep_alive_s: float = KEEP_ALIVE_S,
    form: EventForm = NATIVE,
) -> AsyncIterator[bytes]:
    """Yield the events: progress, comments that keep the connection alive, and finally the result or the error.

    Args:
        request: The request to answer.
        work: Returns what the form takes. It reports its last step before it is done, and its end wakes `progress`.
        progress: The steps that the work reports.
        keep_alive_s: Maximum time without an event, in seconds; then a comment is sent.
        form: Writes the events.
    """
    while True:
        is_done = work.done()  # read first, so that the last steps of finished work are still sent
        if told := form.steps(progress.take()):
            yield told
        place = progress.take_place()
        if place is not None and (told := form.queued(place)):
            yield told
        if is_done:
            break
        if not await progress.wait(keep_alive_s):
            yield KEEPALIVE_COMMENT
    try:
        result = work.result()
    except Exception as error:  # the response has begun, so no handler can report the error
        known = error if isinstance(error, AppError) else AppError()
        log.warning("%s: %s", known.code, known.detail, exc_info=error.__cause__ or (None if known is error else error))
        yield form.error(request, known)
    else:
        yield form.result(result)


def _event(name: str, data: str) -> bytes:
    return format_sse_event(event=name, data_str=data)
