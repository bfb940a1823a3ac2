"""Textual-inversion embeddings: word vectors that stand for a token of their own in a prompt.

Reads the safetensors forms of diffusers (one tensor, whose key is the token) and of other tools (`emb_params`). Imports
no diffusers; any thread may use it.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from app.modelpacks.lora_file import IS_BROKEN, NOT_FINITE, AdapterFault

# The one key of files of AUTOMATIC1111's web UI and its successors; the token is the file's name.
_NAMELESS = "emb_params"
# All vectors of an embedding must fit into the 75 places of a prompt.
_MAX_VECTORS = 75


@dataclass(frozen=True, slots=True)
class EmbeddingFile:
    """An embedding that fits the loaded text encoder.

    Attributes:
        token: What stands for it in a prompt.
        key: Of its tensor in the file.
        num_vectors: How many tokens it takes, >= 1.
    """

    path: Path
    token: str
    key: str
    num_vectors: int

    @property
    def tokens(self) -> list[str]:
        """The token and, for more vectors, further ones.

        Source:
            diffusers `TextualInversionLoaderMixin._extend_tokens_and_embeddings`.
        """
        return [self.token, *(f"{self.token}_{index}" for index in range(1, self.num_vectors))]

    def vectors(self) -> torch.Tensor:
        """Return the vectors. **Shapes**: (V, D).

        Raises:
            AdapterFault: The file cannot be read any more, or has vectors that are not finite.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(self.key)
        except (OSError, SafetensorError) as error:
            raise AdapterFault(IS_BROKEN) from error
        if not tensor.isfinite().all():
            raise AdapterFault(NOT_FINITE)
        return tensor.reshape(self.num_vectors, -1)


def is_embedding(path: Path) -> bool:
    """Return whether a safetensors file has a single tensor, as embeddings do; False where it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return len(list(file.keys())) == 1
    except (OSError, SafetensorError):
        return False


def read_embedding(path: Path, width: int) -> EmbeddingFile:
    """Read a file's header.

    Args:
        path: The file.
        width: Of the text encoder's vectors.

    Raises:
        AdapterFault: The file is broken, of another kind, or for another text encoder; says which.
    """
    try:
        with safe_open(path, framework="pt") as file:
            keys = list(file.keys())
            sizes = {key: file.get_slice(key).get_shape() for key in keys}
    except (OSError, SafetensorError) as error:
        raise AdapterFault(IS_BROKEN) from error
    if set(keys) == {"clip_l", "clip_g"}:
        raise AdapterFault("It is for Stable Diffusion XL.")
    key = keys[0] if keys else ""
    if len(keys) != 1 or len(sizes[key]) not in (1, 2):
        raise AdapterFault("It is not a textual-inversion embedding, which has one tensor of vectors.")
    if sizes[key][-1] != width:
        raise AdapterFault(f"Its vectors have {sizes[key][-1]} numbers, and the loaded model's have {width}.")
    num_vectors = sizes[key][0] if len(sizes[key]) == 2 else 1
    token = path.stem if key == _NAMELESS else key
    if not 1 <= num_vectors <= _MAX_VECTORS or not token.strip() or any(character.isspace() for character in token):
        raise AdapterFault("It has no vectors, too many of them, or a token with spaces.")
    return EmbeddingFile(path, token, key, num_vectors)


class ExtendedEmbedding(nn.Module):
    """A token embedding with further vectors behind its own, which it shares."""

    def __init__(self, base: nn.Embedding, vectors: torch.Tensor) -> None:
        """Take the base and the vectors of the ids that follow its own. **Shapes**: vectors (V, D)."""
        super().__init__()
        self.base = base
        self.vectors = nn.Parameter(vectors.to(base.weight), requires_grad=False)

    @property
    def weight(self) -> torch.Tensor:
        """The base's weights, for those who ask for dtype and device."""
        return self.base.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Look up ids. **Shapes**: ids (...), returns (..., D)."""
        size = self.base.num_embeddings
        own = self.base(ids.clamp(max=size - 1))
        further = self.vectors[(ids - size).clamp(min=0)]
        return torch.where((ids >= size)[..., None], further, own)


def extend_tokenizer(tokenizer: Any, embeddings: Sequence[EmbeddingFile]) -> Any:
    """Return a copy of a tokenizer that knows the tokens of the embeddings, in order, behind its own."""
    extended = copy.deepcopy(tokenizer)
    for embedding in embeddings:
        extended.add_tokens(embedding.tokens)
    return extended


def written_out(prompt: str, embeddings: Sequence[EmbeddingFile]) -> str:
    """Return the prompt with all tokens of each embedding of several vectors.

    Source:
        diffusers `TextualInversionLoaderMixin.maybe_convert_prompt`.
    """
    for embedding in embeddings:
        if embedding.num_vectors > 1:
            prompt = prompt.replace(embedding.token, " ".join(embedding.tokens))
    return prompt
