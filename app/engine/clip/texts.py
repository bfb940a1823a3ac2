"""Texts to CLIP's text embeddings, with a cache.

Uses the text tower of a `CLIPModel`; handles no images and no requests. Runs on the device thread.
"""

from collections.abc import Sequence
from typing import Any

import torch

from app.engine.cache import ByteBoundedCache

# About 23,000 short texts of ViT-B/32; label sets repeat a few hundred.
CACHE_BYTES = 64 * 2**20

# Texts of one forward: 256 labels of 16 requests at once would occupy the device, and its memory, for seconds.
MAX_TEXTS = 64

TokenIds = tuple[int, ...]


class TextEmbeddings:
    """CLIP's text tower with a cache of its latest embeddings."""

    def __init__(self, model: Any, device: torch.device, cache_bytes: int = CACHE_BYTES) -> None:
        """Take a `CLIPModel` on the device, in eval mode."""
        self._model = model
        self._device = device
        self._cache = ByteBoundedCache[TokenIds, torch.Tensor](cache_bytes, _num_bytes)

    def embed(self, texts: Sequence[TokenIds]) -> torch.Tensor:
        """Return the texts' embeddings; encodes those that are not cached.

        Args:
            texts: Token ids from the start to the end token, all different, >= 1.

        Shapes:
            returns: (number of texts, D), float32, of length 1, on the device.
        """
        found = {text: embedding for text in texts if (embedding := self._cache.get(text)) is not None}
        # The shortest first: a forward is as wide as its longest text.
        missing = sorted((text for text in texts if text not in found), key=len)
        for first in range(0, len(missing), MAX_TEXTS):
            chunk = missing[first : first + MAX_TEXTS]
            embeddings = self._encode(chunk)
            found.update(zip(chunk, embeddings, strict=True))
            if embeddings.isfinite().all():  # a fault of the device must not be cached
                for text, embedding in zip(chunk, embeddings, strict=True):
                    self._cache.put(text, embedding.clone())  # a copy: a row of a batch keeps all of it in memory
        return torch.stack([found[text] for text in texts])

    def _encode(self, texts: Sequence[TokenIds]) -> torch.Tensor:
        """Run the text tower once.

        The attention is causal and the features are those of the first end token, so padding changes nothing, and no
        attention mask is needed.

        Source:
            transformers `CLIPModel.forward`.
        """
        length = max(map(len, texts))
        end = texts[0][-1]
        token_ids = torch.tensor([[*text, *[end] * (length - len(text))] for text in texts], device=self._device)
        features = self._model.get_text_features(input_ids=token_ids)
        return unit_length(features.pooler_output)


def unit_length(features: torch.Tensor) -> torch.Tensor:
    """Scale rows (N, D) to length 1, float32."""
    features = features.float()
    scaled: torch.Tensor = features / features.norm(dim=-1, keepdim=True)
    return scaled


def _num_bytes(text: TokenIds, embedding: torch.Tensor) -> int:
    """Estimate the bytes of a cache entry: at most 36 per token id, and about 500 for the tensor object."""
    return 36 * len(text) + embedding.nbytes + 500
