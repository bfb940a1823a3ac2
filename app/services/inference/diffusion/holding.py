"""What requests share and memory bounds: loaded on first use, held by requests, evicted by least recent use.

A request holds a thing from before it is queued until it is drawn. Things that nobody holds stay loaded until their
memory is needed, the least recently used first. A request for whose thing there is no room waits until others are
released, in the order of arrival; those who wait for the same thing enter with the first of them, because then it is
loaded. Imports neither HTTP nor SQL, and no torch. Everything is called on the event loop, but loading and dropping:
they run on a thread of its own.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

from app.errors import QueueFull
from app.metrics.node import LoadedWeights

RETRY_AFTER_S = 10

Key = TypeVar("Key", bound=Hashable)
KeyOfLoads = TypeVar("KeyOfLoads", bound=Hashable, contravariant=True)
Thing = TypeVar("Thing")
Made = TypeVar("Made", covariant=True)


class Loads(Protocol[KeyOfLoads, Made]):
    """How things are loaded."""

    def num_bytes(self, key: KeyOfLoads, /) -> int:
        """Return about how many bytes a thing takes; raises for one that cannot be loaded. Quick."""

    def load(self, key: KeyOfLoads, /) -> Made:
        """Load a thing. Takes seconds."""

    def drop(self, key: KeyOfLoads, /) -> None:
        """Forget a thing that is loaded; called before a later `load`, on the same thread."""


@dataclass(slots=True)
class _Held(Generic[Thing]):
    """A thing that is loaded or being loaded; `users` counts the requests that hold it."""

    num_bytes: int
    loading: "asyncio.Future[Thing]"
    users: int = 0

    @property
    def is_in_use(self) -> bool:
        return self.users > 0 or not self.loading.done()

    @property
    def has_failed(self) -> bool:
        return self.loading.done() and (self.loading.cancelled() or self.loading.exception() is not None)


class _Waiting(NamedTuple, Generic[Key, Thing]):
    """A request for whose thing there was no room, and the future that gives it the thing with one user more."""

    key: Key
    num_bytes: int
    turn: "asyncio.Future[_Held[Thing]]"


class Holder(Generic[Key, Thing]):
    """Holds things for requests within a memory bound.

    Attributes:
        peak_bytes: The most that was loaded or being loaded at a time.
    """

    def __init__(
        self,
        loads: Loads[Key, Thing],
        *,
        max_bytes: int,
        max_waiting: int,
        thread_name: str,
        on_drop: Callable[[Thing], None] = lambda _: None,
    ) -> None:
        """Start with nothing loaded.

        Args:
            loads: Loads things.
            max_bytes: Of all loaded things together, >= 1; a single one must not exceed it.
            max_waiting: Requests that may wait for room.
            thread_name: Of the loading thread.
            on_drop: Called with a thing that is about to be dropped, on the event loop.
        """
        self._loads = loads
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._on_drop = on_drop
        self._held: OrderedDict[Key, _Held[Thing]] = OrderedDict()  # the least recently used first
        self._waiting: deque[_Waiting[Key, Thing]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=thread_name)
        self.peak_bytes = 0
        self._num_loaded = 0
        self._num_failed = 0
        self._num_evicted = 0

    @asynccontextmanager
    async def hold(self, key: Key) -> AsyncIterator[Thing]:
        """Keep a thing loaded inside the block.

        Raises:
            QueueFull: Too many requests wait for room.
            Exception: What `Loads.num_bytes` or `Loads.load` raises.
        """
        held = await self._enter(key)
        try:
            yield await asyncio.shield(held.loading)
        finally:
            self._leave(held)

    def loaded(self, key: Key) -> Thing | None:
        """Return a thing, if it is loaded now; any thread."""
        held = self._held.get(key)
        return held.loading.result() if held and held.loading.done() and not held.has_failed else None

    def state(self) -> LoadedWeights:
        """Return what is held now; any thread."""
        held = list(self._held.values())
        return LoadedWeights(
            loaded=sum(each.loading.done() and not each.has_failed for each in held),
            num_bytes=sum(each.num_bytes for each in held),
            max_bytes=self._max_bytes,
            waiting=len(self._waiting),
            loads=self._num_loaded,
            failures=self._num_failed,
            evictions=self._num_evicted,
        )

    def forget(self, is_meant: Callable[[Key], bool]) -> None:
        """Let go of things that nobody holds, without `Loads.drop`; of those being loaded, once they are."""
        for key, held in list(self._held.items()):
            if not is_meant(key):
                continue
            if not held.is_in_use:
                del self._held[key]
                self._num_evicted += 1
            elif not held.loading.done():
                held.loading.add_done_callback(lambda _: self.forget(is_meant))

    def close(self) -> None:
        """Load nothing more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _enter(self, key: Key) -> _Held[Thing]:
        """Return the thing with one user more; waits for room, behind those who wait already."""
        num_bytes = self._loads.num_bytes(key)
        if not self._waiting and self._has_room(key, num_bytes):
            return self._take(key, num_bytes)
        if len(self._waiting) >= self._max_waiting:
            raise QueueFull(retry_after_s=RETRY_AFTER_S)
        waiting = _Waiting[Key, Thing](key, num_bytes, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        try:
            return await waiting.turn
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            if waiting.turn.cancelled():
                self._let_in()
            else:
                self._leave(waiting.turn.result())
            raise

    def _take(self, key: Key, num_bytes: int) -> _Held[Thing]:
        """Return a thing for which there is room, with one user more."""
        held = self._held.get(key)
        if held is None or held.has_failed:
            self._evict(num_bytes)
            loading = asyncio.get_running_loop().run_in_executor(self._thread, self._loads.load, key)
            held = self._held[key] = _Held(num_bytes, loading)
            self.peak_bytes = max(self.peak_bytes, sum(each.num_bytes for each in self._held.values()))
            loading.add_done_callback(self._count)
        self._held.move_to_end(key)
        held.users += 1
        return held

    def _count(self, loading: "asyncio.Future[Thing]") -> None:
        if loading.cancelled() or loading.exception() is not None:
            self._num_failed += 1
        else:
            self._num_loaded += 1
        self._let_in()

    def _leave(self, held: _Held[Thing]) -> None:
        held.users -= 1
        self._let_in()

    def _has_room(self, key: Key, num_bytes: int) -> bool:
        """Return whether a thing is loaded, or fits beside those in use."""
        in_use = sum(held.num_bytes for held in self._held.values() if held.is_in_use)
        return key in self._held or in_use + num_bytes <= self._max_bytes

    def _let_in(self) -> None:
        """Forget things that could not be loaded, and give those who wait longest theirs, as far as there is room."""
        for key, held in list(self._held.items()):
            if held.has_failed and not held.users:
                del self._held[key]
        while self._waiting and self._has_room(self._waiting[0].key, self._waiting[0].num_bytes):
            first = self._waiting[0].key
            for waiting in [each for each in self._waiting if each.key == first]:
                self._waiting.remove(waiting)
                if not waiting.turn.done():
                    waiting.turn.set_result(self._take(waiting.key, waiting.num_bytes))

    def _evict(self, num_bytes: int) -> None:
        """Drop unused things, the least recently used first, until a new one fits."""
        for key, held in list(self._held.items()):
            if sum(each.num_bytes for each in self._held.values()) + num_bytes <= self._max_bytes:
                return
            if not held.is_in_use:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        held = self._held.pop(key)
        if not held.has_failed:
            self._num_evicted += 1
            self._on_drop(held.loading.result())
            self._thread.submit(self._loads.drop, key)
