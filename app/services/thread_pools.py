"""Thread pools for work that takes long, one for each kind: none can take the threads of another, or of the rest.

Waiting happens on the event loop, in lanes: each owner of work has one, and they take turns, so that many calls of one
request do not hold up the single call of another. What may wait is bounded. Knows nothing of what it runs.

`run` is called on the event loop, `close` on any thread.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from app.error_codes import ErrorCode
from app.errors import Invalid, QueueFull, Unavailable

T = TypeVar("T")

RETRY_AFTER_S = 1

# A picture of 40 megapixels takes one to two seconds on a core of its own; this is for what nobody has thought of.
DECODING_DEADLINE_S = 20.0


class CallTooSlow(Exception):
    """A call has not come back within the pool's deadline; its thread counts as busy until it does."""


class WorkPool:
    """A bounded pool of threads that serves its users in turn and refuses what it cannot take soon."""

    def __init__(
        self,
        name: str,
        *,
        num_threads: int,
        max_waiting: int,
        deadline_s: float | None = None,
        initializer: Callable[[], None] | None = None,
    ) -> None:
        """Start no thread before there is work.

        Args:
            name: Begins the threads' names.
            num_threads: Calls that run at once, >= 1.
            max_waiting: Calls that may wait, >= 1.
            deadline_s: Seconds after its start within which a call must come back; None: no limit.
            initializer: Runs in each thread before its first call.
        """
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name, initializer=initializer)
        self._num_threads = num_threads
        self._max_waiting = max_waiting
        self._deadline_s = deadline_s
        # Changed on the event loop alone. The first lane is served next, and then goes behind the others.
        self._lanes: dict[object, deque[asyncio.Future[None]]] = {}
        self._num_waiting = 0
        self._num_running = 0

    async def run(self, call: Callable[[], T], *, owner: object = None) -> T:
        """Run a call on one of the threads; a caller that leaves takes a waiting call along.

        Args:
            call: What to run.
            owner: Calls of the same owner wait in one lane; default: a lane of its own.

        Raises:
            QueueFull: As many calls as may wait are waiting.
            CallTooSlow: The deadline has passed.
            Unavailable: The pool is closed.
        """
        if self._num_running >= self._num_threads and self._num_waiting >= self._max_waiting:
            raise QueueFull(retry_after_s=RETRY_AFTER_S)
        await self._turn(owner)
        loop = asyncio.get_running_loop()
        try:
            future = self._threads.submit(call)
        except RuntimeError:
            self._free()
            raise Unavailable("The service is stopping. Try again.") from None
        # Not when the caller leaves, but when the thread is free again.
        future.add_done_callback(lambda _: self._free_from_thread(loop))
        return await self._result(future)

    def close(self) -> None:
        """Drop what waits and wait for what runs. May be called again."""
        self._threads.shutdown(cancel_futures=True)

    async def _turn(self, owner: object) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = turn if owner is None else owner
        lane = self._lanes.setdefault(key, deque())
        lane.append(turn)
        self._num_waiting += 1
        self._give_turns()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(key, turn)
            else:  # the turn came at the moment of leaving
                self._free()
            raise

    def _leave(self, key: object, turn: "asyncio.Future[None]") -> None:
        lane = self._lanes.get(key, deque())
        if turn in lane:  # else it was passed over already
            lane.remove(turn)
            self._num_waiting -= 1
        if not lane:
            self._lanes.pop(key, None)

    def _give_turns(self) -> None:
        while self._lanes and self._num_running < self._num_threads:
            key = next(iter(self._lanes))
            lane = self._lanes.pop(key)
            turn = lane.popleft()
            if lane:
                self._lanes[key] = lane
            self._num_waiting -= 1
            if not turn.cancelled():
                self._num_running += 1
                turn.set_result(None)

    def _free(self) -> None:
        self._num_running -= 1
        self._give_turns()

    def _free_from_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(self._free)

    async def _result(self, future: "Future[T]") -> T:
        try:
            async with asyncio.timeout(self._deadline_s) as limit:
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if limit.expired():
                raise CallTooSlow from None
            raise


class PicturePool(WorkPool):
    """A pool whose calls decode untrusted pictures."""

    async def run(self, call: Callable[[], T], *, owner: object = None) -> T:
        """Run a call as every pool does.

        Raises:
            Invalid: `image_too_slow`: the deadline has passed.
            QueueFull, Unavailable: As of every pool.
        """
        try:
            return await super().run(call, owner=owner)
        except CallTooSlow:
            detail = "The image takes too long to be decoded; save it anew, or smaller."
            raise Invalid(detail, code=ErrorCode.IMAGE_TOO_SLOW) from None


@dataclass(frozen=True, slots=True)
class Pools:
    """The pools of an API process, beside that of the pictures that are judged.

    Attributes:
        bodies: Large JSON bodies: parsing and validating.
        decoding: Uploaded pictures; two at once, since one of 40 megapixels takes 120 MB, and as much again while it
            is encoded.
        uploads: Their files and rows.
        reports: What reports and contact sheets read, count and draw.
        exports: The lists and the blocks of archives.
    """

    bodies: WorkPool
    decoding: PicturePool
    uploads: WorkPool
    reports: WorkPool
    exports: WorkPool

    def close(self) -> None:
        """Wait for what runs. May be called again."""
        for pool in (self.bodies, self.decoding, self.uploads, self.reports, self.exports):
            pool.close()


def open_pools() -> Pools:
    """Return the pools of an API process; none has a thread yet."""
    return Pools(
        bodies=WorkPool("bodies", num_threads=2, max_waiting=64),
        decoding=PicturePool("decoding", num_threads=2, max_waiting=64, deadline_s=DECODING_DEADLINE_S),
        uploads=WorkPool("uploads", num_threads=2, max_waiting=64),
        reports=WorkPool("reports", num_threads=2, max_waiting=64),
        # A download under way has at most one block here, and must not be broken off for want of a place.
        exports=WorkPool("exports", num_threads=4, max_waiting=1_024),
    )
