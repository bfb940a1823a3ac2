"""Texts to CLIP's text embeddings, each text once.

Knows the text tower of a `CLIPModel`, nothing of images or requests. Runs on the device thread.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch

# About 23,000 short texts of ViT-B/32; label sets repeat a few hundred.
CACHE_BYTES = 64 * 2**20

# Texts of one forward: 256 labels of 16 requests at once would hold the device, and its memory, for seconds.
MAX_TEXTS = 64

TokenIds = tuple[int, ...]


class TextEmbeddings:
    """CLIP's text tower with a cache of what it said last."""

    def __init__(self, model: Any, device: torch.device, cache_bytes: int = CACHE_BYTES) -> None:
        """Take a `CLIPModel` on the device, in eval mode."""
        self._model = model
        self._device = device
        self._cache: OrderedDict[TokenIds, torch.Tensor] = OrderedDict()
        self._free_bytes = cache_bytes

    def embed(self, texts: Sequence[TokenIds]) -> torch.Tensor:
        """Return the texts' embeddings, encoding those that are not remembered.

        Args:
            texts: Token ids from the start to the end token, all different, >= 1.

        Shapes:
            returns: (number of texts, D), float32, of length 1, on the device.
        """
        found = {text: self._cache[text] for text in texts if text in self._cache}
        for text in found:
            self._cache.move_to_end(text)
        # The shortest first: a forward is as wide as its longest text.
        missing = sorted((text for text in texts if text not in found), key=len)
        for first in range(0, len(missing), MAX_TEXTS):
            chunk = missing[first : first + MAX_TEXTS]
            embeddings = self._encode(chunk)
            found.update(zip(chunk, embeddings, strict=True))
            if embeddings.isfinite().all():  # a fault of the device must not be remembered
                self._remember(chunk, embeddings)
        return torch.stack([found[text] for text in texts])

    def _encode(self, texts: Sequence[TokenIds]) -> torch.Tensor:
        """Run the text tower once.

        The attention is causal and the end token's place is what counts, so that padding changes nothing, and no mask
        has to say where it is.

        Source:
            transformers `CLIPModel.forward`.
        """
        length = max(map(len, texts))
        end = texts[0][-1]
        token_ids = torch.tensor([[*text, *[end] * (length - len(text))] for text in texts], device=self._device)
        features = self._model.get_text_features(input_ids=token_ids)
        return unit_length(features.pooler_output)

    def _remember(self, texts: Sequence[TokenIds], embeddings: torch.Tensor) -> None:
        """Keep embeddings and forget those that were not asked for the longest."""
        for text, embedding in zip(texts, embeddings, strict=True):
            # a copy: a row of a batch would keep all of it in memory
            self._cache[text] = embedding.clone()
            self._free_bytes -= _num_bytes(text, embedding)
        while self._free_bytes < 0:
            self._free_bytes += _num_bytes(*self._cache.popitem(last=False))


def unit_length(features: torch.Tensor) -> torch.Tensor:
    """Scale rows (N, D) to length 1, float32."""
    features = features.float()
    scaled: torch.Tensor = features / features.norm(dim=-1, keepdim=True)
    return scaled


def _num_bytes(text: TokenIds, embedding: torch.Tensor) -> int:
    """Estimate what an entry takes: numbers of a tuple are shared or 28 bytes, a tensor's own record about 500."""
    return 36 * len(text) + embedding.nbytes + 500
