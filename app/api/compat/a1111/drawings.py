"""What each caller draws under `/sdapi/v1`, newest last: progress and interruption mean the newest one.

Imports no services. Used on the event loop alone.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")


class Drawing:
    """The images of one request that are being drawn."""

    def __init__(self, num_images: int, now: float) -> None:
        """Begin at a time, in seconds."""
        self.num_images = num_images
        self.steps = 0
        self.preview: bytes | None = None
        self.was_interrupted = False
        self._begun = now
        self._done: dict[int, int] = {}
        self._task: asyncio.Task[Any] | None = None

    async def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Await the work; `interrupt` cancels the task that this runs in."""
        self._task = asyncio.current_task()
        return await work

    def report(self, image: int, step: int, steps: int, preview: bytes | None = None, /) -> None:
        """Record that an image has done `step` of `steps` steps, and its preview, the PNG file of what it predicts."""
        self._done[image], self.steps = step, steps
        self.preview = preview or self.preview

    @property
    def step(self) -> int:
        """The steps that every image has done."""
        return min(self._done.values(), default=0)

    @property
    def share(self) -> float:
        """The part of all steps that is done, 0 to 1."""
        return sum(self._done.values()) / (self.steps * self.num_images) if self.steps else 0.0

    def seconds_left(self, now: float) -> float:
        """Estimate the seconds to the end from those so far; 0 before the first step."""
        return (now - self._begun) * (1 - self.share) / self.share if self.share else 0.0

    def interrupt(self) -> None:
        """Cancel the work; its request answers that it was interrupted."""
        if self._task is not None and not self.was_interrupted:
            self.was_interrupted = True
            self._task.cancel()


class DrawingBook:
    """The drawings of all callers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty; `clock` returns seconds from any origin."""
        self._clock = clock
        self._by_caller: dict[str, list[Drawing]] = {}

    @contextmanager
    def begin(self, caller_id: str, num_images: int) -> Iterator[Drawing]:
        """Hold a drawing of a caller until the block ends."""
        drawing = Drawing(num_images, self._clock())
        self._by_caller.setdefault(caller_id, []).append(drawing)
        try:
            yield drawing
        finally:
            drawings = self._by_caller[caller_id]
            drawings.remove(drawing)
            if not drawings:
                del self._by_caller[caller_id]

    def newest(self, caller_id: str) -> Drawing | None:
        """Return the caller's newest drawing; None if nothing is drawn for him."""
        drawings = self._by_caller.get(caller_id)
        return drawings[-1] if drawings else None

    def number(self, caller_id: str) -> int:
        """Count the caller's drawings."""
        return len(self._by_caller.get(caller_id, ()))

    def seconds_left(self, drawing: Drawing) -> float:
        """Estimate the seconds until a drawing ends."""
        return drawing.seconds_left(self._clock())
