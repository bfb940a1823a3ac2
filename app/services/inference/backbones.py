"""The backbones of a node by name: those of the pack are always loaded, others on first use, within a memory bound.

Imports neither HTTP nor SQL, and no timm: a `BackboneSource` loads. `use` is called on the event loop; loading runs on
a thread of its own; everything else may be called from any thread.
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

from app.engine.engine import Engine
from app.error_codes import ErrorCode
from app.errors import Invalid, ModelNotReady, Unavailable
from app.logs.errors import WITH_TEXT
from app.node.combined import is_combined
from app.node.protocol import BackboneFacts
from app.services.inference.backbone_descriptions import (
    BackboneDescription,
    BackboneSource,
    LoadedBackbone,
    combine_descriptions,
    parts_of,
)

logger = logging.getLogger(__name__)

State = Literal["ready", "loading", "loadable", "failed"]

# Requests wait this long for a backbone that is being loaded; a small one takes 1 to 3 s, most of it timm's import.
LOAD_WAIT_S = 15.0
RETRY_AFTER_S = 5
# A backbone that could not be loaded is not tried again before this.
FAILED_S = 60.0
MAX_NAMED = 20

# An interactive request waits for the forward that runs; larger forwards wait less for the slowest thread. Lite0 on two
# busy cores: 79 CPU milliseconds an image by 8, 59 by 16, 38 by 32; on one core 25, 21 and 21.
STEP_S = 1.0
MIN_ROWS = 8


@dataclass(slots=True)
class _Entry:
    """A backbone that is loaded or being loaded; `users` counts the calls that need it."""

    future: "Future[LoadedBackbone]" = field(default_factory=Future)
    num_bytes: int = 0
    users: int = 0


@dataclass(frozen=True, slots=True)
class Resident:
    """A backbone that the engine loads at its start.

    Attributes:
        model: Its name in the engine.
        find: Returns it; raises `ModelNotReady` until it is loaded.
    """

    model: str
    find: Callable[[], LoadedBackbone]


class Backbones:
    """Finds, loads and evicts backbones."""

    def __init__(
        self,
        engine: Engine,
        *,
        resident: Mapping[str, Resident] | None = None,
        sources: Callable[[], Mapping[str, BackboneSource]] = dict,
        unlisted: Callable[[str], BackboneSource | None] = lambda _: None,
        max_bytes: int = 2_000_000_000,
        max_rows: int = 32,
        load_wait_s: float = LOAD_WAIT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without any backbone loaded.

        Args:
            engine: Gets the models that are loaded here.
            resident: Backbones that the engine loads at its start, by name.
            sources: Finds the backbones that are loaded on demand; called for each list.
            unlisted: Finds a further one by its name, such as that of a fine-tuned model; `names` does not have it.
            max_bytes: Weights of these together, >= 1.
            max_rows: Most images of one forward, >= 1; fewer where they would take longer than `STEP_S`.
            load_wait_s: Seconds that a call waits for a load.
            clock: Monotonic seconds.
        """
        self._engine = engine
        self._resident = dict(resident or {})
        self._sources = sources
        self._unlisted = unlisted
        self._max_bytes = max_bytes
        self._max_rows = max_rows
        self._load_wait_s = load_wait_s
        self._clock = clock
        self._free = threading.Condition()  # guards what follows; notified when a backbone has no users any more
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # the least recently used first
        self._failures: dict[str, tuple[str, float]] = {}
        self._is_closed = False
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="backbone-loader")

    def names(self) -> list[str]:
        """Return the names of all backbones of the node."""
        return [*self._resident, *sorted(name for name in self._sources() if name not in self._resident)]

    def describe(self, name: str, pointer: str = "#/backbone") -> BackboneDescription:
        """Return what is known of a backbone, without loading it.

        Raises:
            Invalid: `backbone_not_found`, at the pointer.
            ModelNotReady: It is still loading, or its files cannot be used.
        """
        if is_combined(name):
            return combine_descriptions(name, [self.describe(part, pointer) for part in parts_of(name, pointer)])
        if name in self._resident:
            return self._resident[name].find().description
        source = self._source(name)
        if source is None:
            known = self.names()
            more = f" and {len(known) - MAX_NAMED} more; see GET /backbones" if len(known) > MAX_NAMED else ""
            detail = f"The node has no backbone of this name. It has {', '.join(known[:MAX_NAMED])}{more}."
            raise Invalid.field(pointer, detail, ErrorCode.BACKBONE_NOT_FOUND)
        try:
            description = source.describe()
        except Exception as error:
            raise ModelNotReady(_detail_of(name, error), retry_after_s=int(FAILED_S)) from error
        self._drop_if_replaced(name, description.facts)
        return description

    def state(self, name: str) -> tuple[State, str | None]:
        """Return a backbone's state, and for `failed` the reason."""
        if name in self._resident:
            return self._state_of_resident(self._resident[name])
        with self._free:
            failure, entry = self._failures.get(name), self._entries.get(name)
        if entry is not None:
            return ("ready" if entry.future.done() else "loading"), None
        return ("failed", failure[0]) if failure else ("loadable", None)

    def _state_of_resident(self, resident: Resident) -> tuple[State, str | None]:
        status = self._engine.status()[resident.model]
        if status.state != "ready":
            return status.state, status.detail
        try:
            resident.find()
        except ModelNotReady as error:
            return "failed", error.detail
        return "ready", None

    def loaded(self) -> tuple[int, int]:
        """Return the number of backbones that were loaded on demand, and the bytes of their weights."""
        with self._free:
            entries = [entry for entry in self._entries.values() if entry.future.done()]
        return len(entries), sum(entry.num_bytes for entry in entries)

    def images_per_s(self, name: str) -> float | None:
        """Return the measured images per second of a loaded backbone; None before its first forward."""
        model = self._resident[name].model if name in self._resident else _engine_name(name)
        return self._engine.images_per_s(model)

    @asynccontextmanager
    async def use(self, name: str) -> AsyncIterator[LoadedBackbone]:
        """Load a backbone if it is not loaded, and keep it until the block ends.

        Raises:
            Invalid: `backbone_not_found`.
            ModelNotReady: It could not be loaded, or is not loaded in time.
        """
        if name in self._resident:
            yield self._resident[name].find()
            return
        entry = self._enter(name)
        try:
            waiting = asyncio.wrap_future(entry.future)
            await asyncio.wait([waiting], timeout=self._load_wait_s)
            if not waiting.done():
                raise ModelNotReady(f"The backbone {name} is still loading.", retry_after_s=RETRY_AFTER_S)
            yield waiting.result()
        finally:
            self._leave(entry)

    def _source(self, name: str) -> BackboneSource | None:
        return self._sources().get(name) or self._unlisted(name)

    def close(self) -> None:
        """Load nothing more, and wait for the backbone being loaded. May be called again."""
        with self._free:
            self._is_closed = True
            self._free.notify_all()
        self._loader.shutdown(cancel_futures=True)

    def _enter(self, name: str) -> _Entry:
        with self._free:
            detail, failed_at = self._failures.get(name, ("", 0.0))
            if detail and self._clock() - failed_at < FAILED_S:
                raise ModelNotReady(detail, retry_after_s=int(FAILED_S))
            entry = self._entries.get(name)
            if entry is None:
                entry = self._entries[name] = _Entry()
                try:
                    self._loader.submit(self._load, name, entry)
                except RuntimeError:
                    del self._entries[name]
                    raise Unavailable("The service is stopping. Try again.") from None
            self._entries.move_to_end(name)
            entry.users += 1
            return entry

    def _leave(self, entry: _Entry) -> None:
        with self._free:
            entry.users -= 1
            self._free.notify_all()

    # The loader thread.

    def _load(self, name: str, entry: _Entry) -> None:
        started_at = time.monotonic()
        try:
            description = self.describe(name)
            self._make_room(name, entry, description.num_bytes or 0)
            source = self._source(name)
            if source is None:
                raise ModelNotReady(f"The backbone {name} was removed.", retry_after_s=int(FAILED_S))
            runner, inputs = source.load()
            loaded = LoadedBackbone(_engine_name(name), description, inputs)
            self._engine.put_model(loaded.model, runner, max_rows=MIN_ROWS)
            self._engine.set_row_budget(loaded.model, lambda _shape: self._rows(loaded.model))
        except BaseException as error:  # the error of one backbone must not end the thread
            if not isinstance(error, Invalid):  # then the name is a client's word
                logger.warning("Backbone %s could not be loaded.", name, exc_info=error, extra=WITH_TEXT)
            failure = error if isinstance(error, Invalid | ModelNotReady) else None
            detail = failure.detail if failure else _detail_of(name, error)
            with self._free:
                self._entries.pop(name, None)
                if not isinstance(error, Invalid):
                    self._failures[name] = (detail, self._clock())
            entry.future.set_exception(failure or ModelNotReady(detail, retry_after_s=int(FAILED_S)))
            return
        with self._free:
            self._failures.pop(name, None)
        entry.future.set_result(loaded)
        logger.info("Backbone %s is ready after %.1f s.", name, time.monotonic() - started_at)

    def _rows(self, model: str) -> int:
        """Return the images of one forward: as many as take `STEP_S` at the measured speed, within the bounds."""
        speed = self._engine.images_per_s(model) or 0.0
        return min(self._max_rows, max(MIN_ROWS, int(STEP_S * speed)))

    def _drop_if_replaced(self, name: str, facts: BackboneFacts) -> None:
        """Evict an idle backbone whose files are others than when it was loaded."""
        with self._free:
            entry = self._entries.get(name)
            if entry is not None and entry.users == 0 and entry.future.done():
                is_old = entry.future.result().description.facts != facts
                if is_old and self._engine.drop_model(_engine_name(name)):
                    del self._entries[name]

    def _make_room(self, name: str, entry: _Entry, num_bytes: int) -> None:
        """Evict idle backbones, the least recently used first; wait for those in use."""
        if num_bytes > self._max_bytes:
            raise ModelNotReady(
                f"The backbone {name} has {num_bytes / 1e6:.0f} MB and does not fit into FOXHOUND_BACKBONES_MB.",
                retry_after_s=int(FAILED_S),
            )
        with self._free:
            while sum(other.num_bytes for other in self._entries.values()) + num_bytes > self._max_bytes:
                if not self._evict_one():
                    self._free.wait(1.0)  # also ends when a request leaves the engine, which notifies nobody here
                if self._is_closed:
                    raise ModelNotReady("The service is stopping.", retry_after_s=RETRY_AFTER_S)
            entry.num_bytes = num_bytes

    def _evict_one(self) -> bool:
        for name, entry in self._entries.items():
            if entry.users == 0 and entry.future.done() and self._engine.drop_model(_engine_name(name)):
                del self._entries[name]
                logger.info("Backbone %s was evicted.", name)
                return True
        return False


def _engine_name(name: str) -> str:
    return f"backbone:{name}"


def _detail_of(name: str, error: BaseException) -> str:
    detail = getattr(error, "detail", None)
    return str(detail) if detail else f"The backbone {name} could not be loaded. See the log of the service."
