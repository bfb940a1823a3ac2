"""Prompts to embeddings, as StableDiffusionPipeline makes them, each text once.

Knows the tokenizer and the text encoder, nothing of images. Runs on the device thread.
"""

from collections import OrderedDict
from typing import Any

import torch

# About 270 prompts of Stable Diffusion v1.5 in float32; datasets and negative prompts repeat a handful.
CACHE_BYTES = 64 * 2**20


class PromptEncoder:
    """CLIP's text encoder over 77 tokens, with a cache of what it said last."""

    def __init__(self, tokenizer: Any, text_encoder: Any, device: torch.device, cache_bytes: int = CACHE_BYTES) -> None:
        """Take the pack's tokenizer and text encoder, the latter on the device and in eval mode."""
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._device = device
        self._cache: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._free_bytes = cache_bytes

    def encode(self, prompt: str) -> torch.Tensor:
        """Embed one prompt; what does not fit into the tokens is left out.

        One text a forward: in a batch the last bits would depend on how many texts share it.

        Shapes:
            returns: (1, T, D), the text encoder's dtype, on the device; shared, not to be written to.

        Source:
            diffusers `StableDiffusionPipeline.encode_prompt`.
        """
        if prompt in self._cache:
            self._cache.move_to_end(prompt)
        else:
            self._remember(prompt, self._embed(prompt))
        return self._cache[prompt]

    def cut(self, prompt: str) -> str | None:
        """Return the end of the prompt that does not fit into the tokens, as it was written; None if all fits."""
        max_length = self._tokenizer.model_max_length
        # verbose=False: a prompt that is too long is no news, the caller gets a warning of its own
        tokens = self._tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        if len(tokens.input_ids) <= max_length:
            return None
        first_lost = max_length - 1  # the last place belongs to the end-of-text token
        return prompt[tokens.offset_mapping[first_lost][0] :]

    def _embed(self, prompt: str) -> torch.Tensor:
        inputs = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        uses_mask = getattr(self._text_encoder.config, "use_attention_mask", False)
        attention_mask = inputs.attention_mask.to(self._device) if uses_mask else None
        embeds: torch.Tensor = self._text_encoder(inputs.input_ids.to(self._device), attention_mask=attention_mask)[0]
        return embeds.to(dtype=self._text_encoder.dtype)

    def _remember(self, prompt: str, embeds: torch.Tensor) -> None:
        """Keep an embedding and forget the ones that were not asked for the longest; the newest always stays."""
        self._cache[prompt] = embeds
        self._free_bytes -= embeds.nbytes
        while self._free_bytes < 0 and len(self._cache) > 1:
            _, oldest = self._cache.popitem(last=False)
            self._free_bytes += oldest.nbytes
