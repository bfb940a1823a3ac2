"""The folder of adapters: LoRAs and textual-inversion embeddings by name, and models with some of them applied.

The folder is read once, when the diffusion model is loaded. Files that do not fit are listed with the reason. A pack's
own few-step weights are a LoRA beside those of the folder. Imports no engine. The engine's loader thread lists; a
thread of its own builds.
"""

import copy
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import torch
from torch import nn

from app.image_spec import AdapterSet, LoraUse
from app.modelpacks.embedding_file import (
    EmbeddingFile,
    ExtendedEmbedding,
    extend_tokenizer,
    is_embedding,
    read_embedding,
    written_out,
)
from app.modelpacks.fusing import add_deltas, fused_bytes, layer_shapes, share_untouched
from app.modelpacks.lora_file import (
    IS_PICKLE,
    PICKLE_SUFFIXES,
    TEXT_ENCODER,
    UNET,
    AdapterFault,
    LayerShapes,
    LoraFile,
    read_lora,
)
from app.modelpacks.pack import sha256_of

logger = logging.getLogger(__name__)

SUFFIX = ".safetensors"
EMBEDDINGS = "embeddings"
_TOKENS = "token_embedding"
MAX_NAME_CHARS = 200

AdapterType = TypeVar("AdapterType", LoraFile, EmbeddingFile)


@dataclass(frozen=True, slots=True)
class AdapterEntry(Generic[AdapterType]):
    """A file of the folder.

    Attributes:
        name: The file's name without its suffix.
        num_bytes: Of the file.
        file: What was read; None where it cannot be used.
        fault: Why it cannot be used, as a sentence; None where it can.
    """

    name: str
    path: Path
    num_bytes: int
    modified_ns: int
    file: AdapterType | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class AdaptedModels:
    """The diffusion models under an adapter set, as the library builds them; parts are shared with the base.

    Attributes:
        rewrite: From a prompt to the text that the tokenizer gets.
        sha256: The hash of each file, by its name.
    """

    tokenizer: Any
    text_encoder: Any
    unet: Any
    rewrite: Callable[[str], str]
    sha256: Mapping[str, str]


class AdapterFolder:
    """The adapters of a node."""

    def __init__(
        self, folder: Path | None, *, unet: nn.Module, text_encoder: nn.Module, few_step: Path | None = None
    ) -> None:
        """List the folder's files.

        Args:
            folder: With LoRAs, and embeddings there or in its subfolder `embeddings`; may be missing. None: none.
            unet: The loaded one, as the library builds it.
            text_encoder: The loaded one.
            few_step: The pack's few-step weights; None: it has none.

        Raises:
            AdapterFault: The few-step weights do not fit the UNet.
        """
        self._shapes: LayerShapes = {UNET: layer_shapes(unet), TEXT_ENCODER: layer_shapes(text_encoder)}
        self._width = int(_token_embedding(text_encoder).embedding_dim)
        self._itemsize = next(unet.parameters()).element_size()
        self.loras: dict[str, AdapterEntry[LoraFile]] = {}
        self.embeddings: dict[str, AdapterEntry[EmbeddingFile]] = {}
        self._few_step = None if few_step is None else read_lora(few_step, self._shapes)
        for path in () if folder is None else _files(folder):
            if path.parent.name == EMBEDDINGS or is_embedding(path):
                self.embeddings.setdefault(path.stem, _entry(path, lambda file: read_embedding(file, self._width)))
            else:
                self.loras.setdefault(path.stem, _entry(path, lambda file: read_lora(file, self._shapes)))

    def num_bytes(self, adapters: AdapterSet) -> int:
        """Return about how many bytes of weights a set adds to the loaded model; 0 for embeddings alone."""
        files = [file for _, file in self._uses(adapters)]
        return sum(
            fused_bytes(self._shapes, model, set[str]().union(*(file.touched(model) for file in files)), self._itemsize)
            for model in (UNET, TEXT_ENCODER)
        )

    def build(self, adapters: AdapterSet, base: "BaseModels") -> AdaptedModels:
        """Apply a set of usable adapters.

        Args:
            adapters: Names of usable files.
            base: The models that serve.

        Raises:
            AdapterFault: A file is no longer what it was when the node started.
        """
        entries = [self.loras[use.name] for use in adapters.loras]
        sha256 = {entry.name: _hash_unchanged(entry) for entry in entries}
        embeddings = [_usable(self.embeddings, name) for name in adapters.embeddings]
        sha256 |= {name: _hash_unchanged(self.embeddings[name]) for name in adapters.embeddings}
        uses = self._uses(adapters)
        text_encoder = self._fused(TEXT_ENCODER, uses, base.text_encoder, base.reload_text_encoder)
        return AdaptedModels(
            tokenizer=extend_tokenizer(base.tokenizer, embeddings) if embeddings else base.tokenizer,
            text_encoder=_with_vectors(text_encoder, embeddings) if embeddings else text_encoder,
            unet=self._fused(UNET, uses, base.unet, base.reload_unet),
            rewrite=lambda prompt: written_out(prompt, embeddings),
            sha256=sha256,
        )

    def _uses(self, adapters: AdapterSet) -> list[tuple[LoraUse, LoraFile]]:
        """Return the LoRAs of a set with their files; raises AdapterFault where one cannot be used."""
        uses = [(use, _usable(self.loras, use.name)) for use in adapters.loras]
        if not adapters.is_few_step:
            return uses
        if self._few_step is None:
            raise AdapterFault("The loaded model has no weights for speed fast.")
        return [(LoraUse("few-step"), self._few_step), *uses]

    def _fused(
        self, model: str, uses: Sequence[tuple[LoraUse, LoraFile]], base: Any, reload: Callable[[], nn.Module]
    ) -> Any:
        """Return a model with the LoRAs added to its weights; the base itself where they change nothing of it."""
        touched = set[str]().union(*(file.touched(model) for _, file in uses))
        if not touched:
            return base
        fused = reload()
        share_untouched(fused, base, touched)
        add_deltas(
            fused,
            ((name, use.weight, delta) for use, file in uses for name, delta in file.deltas(model, self._shapes)),
        )
        return fused


@dataclass(frozen=True, slots=True)
class BaseModels:
    """The diffusion models that serve without adapters, and how to load those that adapters change once more.

    Attributes:
        unet: Its blocks may be optimised ones.
        reload_unet: Loads it from its file, as the library builds it, on the device.
        reload_text_encoder: The same for the text encoder.
    """

    tokenizer: Any
    text_encoder: Any
    unet: Any
    reload_unet: Callable[[], nn.Module]
    reload_text_encoder: Callable[[], nn.Module]


def _with_vectors(text_encoder: nn.Module, embeddings: Sequence[EmbeddingFile]) -> nn.Module:
    """Return a text encoder that shares all layers and has further vectors behind those of its tokens."""
    extended = _twin(text_encoder)
    holder = extended
    for name in _embeddings_path(text_encoder):
        setattr(holder, name, _twin(getattr(holder, name)))
        holder = getattr(holder, name)
    vectors = torch.cat([embedding.vectors().float() for embedding in embeddings])
    setattr(holder, _TOKENS, ExtendedEmbedding(_token_embedding(text_encoder), vectors))
    return extended


def _twin(module: nn.Module) -> nn.Module:
    """Return a module of its own with the same children and parameters."""
    twin = copy.copy(module)
    twin.__dict__["_modules"] = dict(module._modules)
    return twin


def _embeddings_path(text_encoder: nn.Module) -> tuple[str, ...]:
    # transformers 5.6 flattened the model
    return ("text_model", "embeddings") if hasattr(text_encoder, "text_model") else ("embeddings",)


def _token_embedding(text_encoder: nn.Module) -> nn.Embedding:
    return cast(nn.Embedding, text_encoder.get_submodule(".".join((*_embeddings_path(text_encoder), _TOKENS))))


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of the folder and of `embeddings` that may be adapters, by name."""
    for each in (folder, folder / EMBEDDINGS):
        try:
            paths = sorted(each.iterdir())
        except OSError:
            continue  # also where there is no such folder
        yield from (path for path in paths if path.is_file() and path.suffix.lower() in {SUFFIX, *PICKLE_SUFFIXES})


def _entry(path: Path, read: Callable[[Path], AdapterType]) -> AdapterEntry[AdapterType]:
    """Read a file of the folder; the entry of one that cannot be used has the reason, which is logged too."""
    stat = path.stat()
    entry: AdapterEntry[AdapterType] = AdapterEntry(path.stem, path, stat.st_size, stat.st_mtime_ns)
    try:
        if path.suffix.lower() in PICKLE_SUFFIXES:
            raise AdapterFault(IS_PICKLE)
        if len(path.stem) > MAX_NAME_CHARS or not path.stem.isprintable():
            raise AdapterFault(f"Its name has more than {MAX_NAME_CHARS} characters, or some that cannot be printed.")
        return replace(entry, file=read(path))
    except AdapterFault as error:
        logger.warning("The adapter %r cannot be used. %s", path.name[:MAX_NAME_CHARS], error)
        return replace(entry, fault=str(error))


def _usable(entries: Mapping[str, AdapterEntry[AdapterType]], name: str) -> AdapterType:
    """Return the file of a name; raises AdapterFault where there is none that can be used."""
    entry = entries.get(name)
    if entry is None or entry.file is None:
        raise AdapterFault((entry.fault if entry else None) or "There is no adapter of this name.")
    return entry.file


def _hash_unchanged(entry: AdapterEntry[AdapterType]) -> str:
    """Return a file's hash; raises AdapterFault where it is not the file that was listed."""
    try:
        stat = entry.path.stat()
        if (stat.st_size, stat.st_mtime_ns) != (entry.num_bytes, entry.modified_ns):
            raise AdapterFault("It was replaced after the node has started. Restart the node.")
        return sha256_of(entry.path)
    except OSError as error:
        raise AdapterFault("It cannot be read any more.") from error
