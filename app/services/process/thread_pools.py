"""Bounded thread pools, one for each kind of long work, so that no kind can occupy the threads of another.

Calls wait on the event loop in lanes. Each owner of calls has one lane. Callers are served round-robin, and so are the
lanes of one caller, so that many calls of one request do not delay the single call of another. The number of waiting
calls is bounded, and callers share the places. Imports nothing of the work that it runs. `run` is called on the event
loop, `close` on any thread.
"""

import asyncio
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TypeVar

from app.engine.scheduling.turns import has_place
from app.error_codes import ErrorCode
from app.errors import Invalid, QueueFull, Unavailable
from app.logs.context import carried
from app.services.process.idle_memory import IdleMemory

T = TypeVar("T")

RETRY_AFTER_S = 1

# An image of 40 megapixels takes one to two seconds on an idle core; this limits inputs that the other limits miss.
DECODING_DEADLINE_S = 20.0


# Large images that are decoded at once: one core stays free of them. Each takes 120 MB at 40 megapixels, and as much
# again while it is encoded.
NUM_LARGE_PICTURES = max(1, min((os.cpu_count() or 1) - 1, 8))

# Of threads whose work may take long while requests of milliseconds wait: such a thread has a tenth of the share of a
# normal one on a busy core, and all of an idle one.
BACKGROUND_NICE = 10


class CallTooSlow(Exception):
    """A call did not return within the pool's deadline; its thread counts as busy until the call returns."""


class WorkPool:
    """A pool of threads with a bounded queue; callers and their owners of calls are served round-robin."""

    def __init__(
        self,
        name: str,
        *,
        num_threads: int,
        max_waiting: int,
        deadline_s: float | None = None,
        initializer: Callable[[], None] | None = None,
    ) -> None:
        """Describe the pool; threads start with the first calls.

        Args:
            name: Prefix of the threads' names.
            num_threads: Calls that run at once, >= 1.
            max_waiting: Calls that may wait, >= 1; as many again of callers with few of them, see `has_place`.
            deadline_s: Seconds after its start within which a call must return, > 0; None: no limit.
            initializer: Called in each thread before its first call.
        """
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix=name, initializer=initializer)
        self._num_threads = num_threads
        self._max_waiting = max_waiting
        self._deadline_s = deadline_s
        # By caller and owner, changed on the event loop alone. The first is served next and then moves to the end.
        self._lanes: dict[str, dict[object, deque[asyncio.Future[None]]]] = {}
        self._waiting: Counter[str] = Counter()
        self._num_running = 0

    async def run(self, call: Callable[[], T], *, owner: object = None, caller: str = "") -> T:
        """Run a call on one of the threads; cancelling the awaiting task removes a call that still waits.

        Args:
            call: The function to run.
            owner: Calls of the same owner wait in one lane; None: a lane for this call alone.
            caller: Whose call it is.

        Raises:
            QueueFull: The queue is full.
            CallTooSlow: The deadline has passed.
            Unavailable: The pool is closed.
        """
        if self._num_running >= self._num_threads and not has_place(self._waiting, caller, self._max_waiting):
            raise QueueFull(retry_after_s=RETRY_AFTER_S)
        await self._turn(owner, caller)
        loop = asyncio.get_running_loop()
        try:
            future = self._threads.submit(carried(call))
        except RuntimeError:
            self._free()
            raise Unavailable("The service is stopping. Try again.") from None
        # The thread is free when the call returns, not when the caller is cancelled.
        future.add_done_callback(lambda _: self._free_from_thread(loop))
        return await self._result(future)

    def close(self) -> None:
        """Drop waiting calls and wait for running ones. May be called again."""
        self._threads.shutdown(cancel_futures=True)

    async def _turn(self, owner: object, caller: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        key = turn if owner is None else owner
        lane = self._lanes.setdefault(caller, {}).setdefault(key, deque())
        lane.append(turn)
        self._waiting[caller] += 1
        self._give_turns()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(caller, key, turn)
            else:  # the turn was granted while the task was being cancelled
                self._free()
            raise

    def _leave(self, caller: str, key: object, turn: "asyncio.Future[None]") -> None:
        lanes = self._lanes.get(caller, {})
        lane = lanes.get(key, deque())
        if turn in lane:  # else `_give_turns` has removed it
            lane.remove(turn)
            self._count_out(caller)
        if not lane:
            lanes.pop(key, None)
        if not lanes:
            self._lanes.pop(caller, None)

    def _give_turns(self) -> None:
        while self._lanes and self._num_running < self._num_threads:
            caller = next(iter(self._lanes))
            lanes = self._lanes.pop(caller)
            key = next(iter(lanes))
            lane = lanes.pop(key)
            turn = lane.popleft()
            if lane:
                lanes[key] = lane
            if lanes:
                self._lanes[caller] = lanes
            self._count_out(caller)
            if not turn.cancelled():
                self._num_running += 1
                turn.set_result(None)

    def _count_out(self, caller: str) -> None:
        self._waiting[caller] -= 1
        if not self._waiting[caller]:
            del self._waiting[caller]

    def _free(self) -> None:
        self._num_running -= 1
        self._give_turns()

    def _free_from_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is closed, so no call waits
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
    """A pool whose calls decode untrusted images; the memory that they took is returned when the pool is idle."""

    def __init__(
        self,
        name: str,
        *,
        num_threads: int,
        max_waiting: int,
        deadline_s: float | None = DECODING_DEADLINE_S,
        initializer: Callable[[], None] | None = None,
        memory: IdleMemory | None = None,
    ) -> None:
        """Describe the pool as `WorkPool` does; `memory` is told of every call that ends."""
        super().__init__(
            name, num_threads=num_threads, max_waiting=max_waiting, deadline_s=deadline_s, initializer=initializer
        )
        self._memory = memory or IdleMemory()

    async def run(self, call: Callable[[], T], *, owner: object = None, caller: str = "") -> T:
        """Run a call as `WorkPool.run` does.

        Raises:
            Invalid: `image_too_slow`: the deadline has passed.
            QueueFull, Unavailable: As in `WorkPool.run`.
        """
        try:
            return await super().run(call, owner=owner, caller=caller)
        except CallTooSlow:
            detail = "The image takes too long to decode. Save it again, or at a smaller size."
            raise Invalid(detail, code=ErrorCode.IMAGE_TOO_SLOW) from None
        finally:
            self._memory.note_work()


@dataclass(frozen=True, slots=True)
class Pools:
    """The thread pools of an API process, except the pool that decodes images for scoring.

    Attributes:
        bodies: Parses and validates large JSON bodies.
        decoding: Decodes small uploaded images.
        large_pictures: Waits for the processes that decode large uploaded images.
        uploads: Writes files and rows of uploads.
        reports: Reads, computes and draws reports and contact sheets.
        exports: Lists the members of archives and reads their blocks.
        models: Makes files of trained models, one at a time: each takes up to half a minute, and the memory of a
            backbone.
        explanations: Computes heat maps of classified images, and compares images with those that a model was trained
            on, one at a time.
        thumbnails: Makes small copies of stored images; a gallery asks for many at once.
    """

    bodies: WorkPool
    decoding: PicturePool
    large_pictures: PicturePool
    uploads: WorkPool
    reports: WorkPool
    exports: WorkPool
    models: WorkPool
    explanations: WorkPool
    thumbnails: WorkPool

    def close(self) -> None:
        """Wait for running calls. May be called again."""
        for pool in fields(self):
            getattr(self, pool.name).close()


def take_one_core_only() -> None:
    """Keep the calling thread from ever having an OpenMP team.

    Once all teams together have more threads than there are cores, libgomp sleeps at barriers instead of spinning, in
    every team: a denoising step of the demo pack then takes up to twice as long (decision 0019).
    """
    import torch
    from threadpoolctl import threadpool_limits

    torch.get_num_threads()  # the first call sets the thread's number, which the next line must override
    threadpool_limits(1, user_api="openmp")


def yield_to_other_threads() -> None:
    """Lower the priority of the calling thread, so that a busy processor serves short requests first; Linux only.

    Elsewhere `setpriority` would change the whole process.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        now = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(now + BACKGROUND_NICE, 19))


def open_pools() -> Pools:
    """Return the pools of an API process; no thread is started yet."""
    return Pools(
        bodies=WorkPool("bodies", num_threads=2, max_waiting=64),
        decoding=PicturePool("decoding", num_threads=2, max_waiting=64, initializer=yield_to_other_threads),
        large_pictures=PicturePool("large-uploads", num_threads=NUM_LARGE_PICTURES, max_waiting=64, deadline_s=None),
        uploads=WorkPool("uploads", num_threads=2, max_waiting=64),
        reports=WorkPool("reports", num_threads=2, max_waiting=64),
        # A running download has at most one block here and must not fail because the queue is full.
        exports=WorkPool("exports", num_threads=4, max_waiting=1_024),
        models=WorkPool("models", num_threads=1, max_waiting=8, initializer=compute_aside),
        explanations=WorkPool("explanations", num_threads=1, max_waiting=16, initializer=compute_aside),
        thumbnails=WorkPool("thumbnails", num_threads=2, max_waiting=512, initializer=yield_to_other_threads),
    )


def compute_aside() -> None:
    """Keep the calling thread to one core and a lower priority."""
    take_one_core_only()
    yield_to_other_threads()
