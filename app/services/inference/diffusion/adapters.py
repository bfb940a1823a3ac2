"""The LoRAs and embeddings of a node in use, as sets of them: see `Holder` for how requests share and hold them.

Each set belongs to one loaded diffusion model. Imports neither HTTP nor SQL. `hold`, `forget` and `close` are called on
the event loop; loading runs on a thread of its own.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import NamedTuple, Protocol

from app.error_codes import ErrorCode
from app.errors import Invalid
from app.image_spec import AdapterSet, ImageSpec
from app.metrics.node import LoadedWeights
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.lora_file import AdapterFault
from app.services.inference.diffusion.holding import Holder

# Why adapters cannot be used, by name; None: they can.
Faults = Mapping[str, str | None]


class NodeAdapters(Protocol):
    """The adapters of one loaded model of the engine."""

    @property
    def folder(self) -> AdapterFolder:
        """What there is."""

    def num_bytes(self, adapters: AdapterSet) -> int:
        """Return about how many bytes a set adds to the loaded model."""

    def load(self, adapters: AdapterSet) -> Mapping[str, str]:
        """Load a set and return the SHA-256 of its files by name; raises AdapterFault. Takes seconds."""

    def drop(self, adapters: AdapterSet) -> None:
        """Forget a set."""


class _OfModel(NamedTuple):
    """A set of one loaded model; the same model loaded again is another one."""

    model: NodeAdapters
    adapters: AdapterSet


class _SetLoads:
    """Loads sets into their models."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def num_bytes(self, key: _OfModel, /) -> int:
        num_bytes = key.model.num_bytes(key.adapters)
        if num_bytes > self._max_bytes:
            detail = (
                f"The weights that these LoRAs change take {num_bytes // 1_000_000 + 1} MB, and this node keeps at "
                f"most {self._max_bytes // 1_000_000} (FOXHOUND_LORAS_MB)."
            )
            raise Invalid.field("#/loras", detail, ErrorCode.LORAS_TOO_LARGE)
        return num_bytes

    def load(self, key: _OfModel, /) -> Mapping[str, str]:
        return key.model.load(key.adapters)

    def drop(self, key: _OfModel, /) -> None:
        key.model.drop(key.adapters)


class Adapters:
    """Holds adapter sets for requests."""

    def __init__(
        self,
        find: Callable[[], NodeAdapters],
        *,
        max_bytes: int = 4_000_000_000,
        max_waiting: int = 64,
        has_folder: bool = True,
    ) -> None:
        """Start with no set loaded.

        Args:
            find: Returns the default model's; raises ModelNotReady until the diffusion model is loaded.
            max_bytes: Of all loaded sets together, >= 1.
            max_waiting: Requests that may wait for room.
            has_folder: Whether there is a folder of adapters; else each is refused.
        """
        self._has_folder = has_folder
        self._find = find
        self._holder: Holder[_OfModel, Mapping[str, str]] = Holder(
            _SetLoads(max_bytes), max_bytes=max_bytes, max_waiting=max_waiting, thread_name="adapter-loader"
        )

    @asynccontextmanager
    async def hold(self, adapters: AdapterSet, model: NodeAdapters | None = None) -> AsyncIterator[Mapping[str, str]]:
        """Keep a set loaded inside the block; gives the SHA-256 of its files by name.

        Args:
            adapters: The set; an empty one needs nothing.
            model: The adapters of a loaded model that stays loaded meanwhile; None: of the default one.

        Raises:
            ModelNotReady: The diffusion model is not loaded.
            Invalid: A file of the set cannot be used, or the set is larger than the bound.
            QueueFull: Too many requests wait for room.
        """
        if not adapters:
            yield {}
            return
        if not self._has_folder and (adapters.loras or adapters.embeddings):
            raise Invalid("This node has no LoRAs or embeddings.", code=ErrorCode.LORA_NOT_FOUND)
        try:
            async with self._holder.hold(_OfModel(model or self._find(), adapters)) as files:
                yield files
        except AdapterFault as error:
            detail = f"A LoRA or an embedding cannot be used. {error}"
            raise Invalid(detail, code=ErrorCode.LORA_NOT_FOUND) from error

    def forget(self, model: NodeAdapters) -> None:
        """Let go of the sets of a model that is about to be dropped, and they with it."""
        self._holder.forget(lambda key: key.model is model)

    @staticmethod
    def with_tokens(spec: ImageSpec, folder: AdapterFolder | None) -> ImageSpec:
        """Return the spec with the embeddings whose token in angle brackets stands in one of its prompts.

        Source:
            diffusers, where a token that was loaded applies wherever it stands.
        """
        files = [] if folder is None else [(entry.name, entry.file) for entry in folder.embeddings.values()]
        texts = f"{spec.prompt}\n{spec.negative_prompt}"
        found = {
            name: None
            for name, file in files
            if file is not None and file.token.startswith("<") and file.token.endswith(">") and file.token in texts
        }
        return replace(spec, embeddings=tuple(dict.fromkeys([*spec.embeddings, *found]))) if found else spec

    def faults(self, folder: AdapterFolder | None) -> tuple[Faults | None, Faults | None]:
        """Return why LoRAs and embeddings cannot be used, by name; both None while the folder is not read yet."""
        if folder is None:
            return (None, None) if self._has_folder else ({}, {})
        loras: Faults = {name: entry.fault for name, entry in folder.loras.items()}
        embeddings: Faults = {name: entry.fault for name, entry in folder.embeddings.items()}
        return loras, embeddings

    def state(self) -> LoadedWeights:
        """Return which sets are loaded now; any thread."""
        return self._holder.state()

    def close(self) -> None:
        """Load nothing more."""
        self._holder.close()
