"""The diffusion models of a node in use: the default one, which stays, and others within a memory bound.

See `Holder` for how requests share and hold them. Imports neither HTTP nor SQL. `hold` and `close` are called on the
event loop, `loaded` and `failure` on any thread; loading runs on a thread of its own.
"""

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from app.engine.diffusion.previews import LatentColours
from app.error_codes import ErrorCode
from app.errors import AppError, Invalid, ModelNotReady
from app.logs.errors import WITH_TEXT
from app.metrics.node import LoadedWeights
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.listing import ListedModel, Skeleton
from app.modelpacks.pack import PackError
from app.services.images.spec import model_fault
from app.services.inference.diffusion.adapters import NodeAdapters
from app.services.inference.diffusion.holding import Holder

logger = logging.getLogger(__name__)

# A model that could not be loaded is not tried again before this: each trial evicts others.
FAILED_S = 60.0


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A diffusion model that serves.

    Attributes:
        name: As requests name it; None: the default one.
        revision: Of its weights; None: the pack's.
        files: The SHA-256 of each file of weights, by name; empty for the default one.
        adapters: Its LoRAs and embeddings; None without a folder of them.
        colours: Of previews.
    """

    name: str | None = None
    revision: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    adapters: NodeAdapters | None = None
    colours: LatentColours | None = None


class NodeModels(Protocol):
    """The models beside the default one: what there is, and how one is loaded."""

    @property
    def listed(self) -> Mapping[str, ListedModel]:
        """All that the settings name."""

    def folder(self, name: str) -> AdapterFolder | None:
        """Return the adapters as they fit a model; None without a folder of them."""

    def revision(self, name: str) -> str:
        """Return the version of a usable model's weights; raises PackError for files that were replaced. Any thread."""

    def load(self, name: str) -> LoadedModel:
        """Load a usable model into the engine; raises PackError for broken files. Takes seconds."""

    def drop(self, name: str) -> None:
        """Remove a model from the engine."""


class _Failure(NamedTuple):
    """A trial to load a model that failed; keeps no exception, whose frames would keep what was loaded of it.

    Attributes:
        fault: What is wrong with its files; None: something else failed, and another trial may succeed.
        failed_at: Monotonic seconds.
    """

    fault: str | None
    failed_at: float

    def error(self) -> AppError:
        """Return the error for a request."""
        if self.fault is not None:
            return Invalid(f"This model cannot be used. {self.fault}", code=ErrorCode.MODEL_NOT_FOUND)
        return ModelNotReady("The model could not be loaded. See the log of the service.", retry_after_s=int(FAILED_S))


class _ModelLoads:
    """Loads models, and remembers which could not be loaded."""

    def __init__(self, find: Callable[[], NodeModels], clock: Callable[[], float]) -> None:
        self._find = find
        self._clock = clock
        self._failures: dict[str, _Failure] = {}

    def failure(self, name: str) -> AppError | None:
        """Return why the latest trial to load a model has failed, for `FAILED_S`."""
        failure = self._failures.get(name)
        return failure.error() if failure is not None and self._clock() - failure.failed_at < FAILED_S else None

    def num_bytes(self, name: str, /) -> int:
        num_bytes = self._skeleton(name).num_bytes
        if (failure := self.failure(name)) is not None:
            raise failure
        return num_bytes

    def revision(self, name: str) -> str:
        """Return the version of a model's weights; see `Models.revision`."""
        self._skeleton(name)
        try:
            return self._find().revision(name)
        except (PackError, OSError) as error:
            detail = error.detail if isinstance(error, PackError) else "Its files cannot be read any more."
            raise Invalid(f"This model cannot be used. {detail}", code=ErrorCode.MODEL_NOT_FOUND) from error

    def _skeleton(self, name: str) -> Skeleton:
        """Return the networks of a usable model; raises Invalid for one that is not there or cannot be used."""
        model = self._find().listed.get(name)
        if model is None or model.skeleton is None:
            faults = {each.name: each.fault for each in self._find().listed.values()}
            raise Invalid(model_fault(name, faults), code=ErrorCode.MODEL_NOT_FOUND)
        return model.skeleton

    def load(self, name: str, /) -> LoadedModel:
        started_at = time.monotonic()
        try:
            loaded = self._find().load(name)
        except BaseException as error:
            logger.warning("The model %s could not be loaded.", name, exc_info=error, extra=WITH_TEXT)
            self._failures[name] = failure = _Failure(
                error.detail if isinstance(error, PackError) else None, self._clock()
            )
            raise failure.error() from error
        self._failures.pop(name, None)
        logger.info("The model %s is ready after %.1f s.", name, time.monotonic() - started_at)
        return loaded

    def drop(self, name: str, /) -> None:
        self._find().drop(name)
        logger.info("The model %s was evicted.", name)


class Models:
    """Holds diffusion models for requests."""

    def __init__(
        self,
        find: Callable[[], NodeModels],
        find_own: Callable[[], LoadedModel],
        *,
        max_bytes: int = 5_000_000_000,
        max_waiting: int = 64,
        on_drop: Callable[[LoadedModel], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start with the default model alone.

        Args:
            find: Returns the others; raises ModelNotReady until they are listed.
            find_own: Returns the default model.
            max_bytes: Of the others together, >= 1.
            max_waiting: Requests that may wait for room.
            on_drop: Called with a model that is about to be dropped, on the event loop.
            clock: Monotonic seconds.
        """
        self._find_own = find_own
        self._loads = _ModelLoads(find, clock)
        self._holder: Holder[str, LoadedModel] = Holder(
            self._loads, max_bytes=max_bytes, max_waiting=max_waiting, thread_name="model-loader", on_drop=on_drop
        )

    @asynccontextmanager
    async def hold(self, name: str | None) -> AsyncIterator[LoadedModel]:
        """Keep a model loaded inside the block; None is the default one.

        Raises:
            ModelNotReady: The models are not listed yet, or this one could not be loaded.
            Invalid: There is no such model, or it cannot be used.
            QueueFull: Too many requests wait for room.
        """
        if name is None:
            yield self._find_own()
            return
        async with self._holder.hold(name) as model:
            yield model

    def revision(self, name: str) -> str:
        """Return the version of a model's weights, loaded or not. Any thread, outside of transactions.

        The first time, the files of a model without a manifest are hashed, which takes seconds.

        Raises:
            ModelNotReady: The models are not listed yet.
            Invalid: There is no such model, or it cannot be used.
        """
        return self._loads.revision(name)

    def loaded(self, name: str) -> LoadedModel | None:
        """Return a model, if it is loaded now."""
        return self._holder.loaded(name)

    def failure(self, name: str) -> str | None:
        """Return why the latest trial to load a model has failed."""
        failure = self._loads.failure(name)
        return None if failure is None else failure.detail

    @property
    def peak_bytes(self) -> int:
        """The most that was loaded or being loaded at a time, of models beside the default one."""
        return self._holder.peak_bytes

    def state(self) -> LoadedWeights:
        """Return what is loaded now beside the default model; any thread."""
        return self._holder.state()

    def close(self) -> None:
        """Load nothing more."""
        self._holder.close()
