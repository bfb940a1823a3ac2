"""Prompts to embeddings, as StableDiffusionPipeline computes them, with a cache.

Uses the pack's tokenizer and text encoder; handles no images and no requests. Runs on the device thread.
"""

from typing import Any

import torch

from app.engine.cache import ByteBoundedCache

# About 270 prompts of Stable Diffusion v1.5 in float32; datasets and negative prompts repeat a handful.
CACHE_BYTES = 64 * 2**20


class PromptEncoder:
    """CLIP's text encoder over 77 tokens, with a cache of its latest embeddings."""

    def __init__(self, tokenizer: Any, text_encoder: Any, device: torch.device, cache_bytes: int = CACHE_BYTES) -> None:
        """Take the pack's tokenizer and text encoder, the latter on the device and in eval mode."""
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._device = device
        self._cache = ByteBoundedCache[str, torch.Tensor](cache_bytes, lambda _prompt, embeds: embeds.nbytes)

    def encode(self, prompt: str) -> torch.Tensor:
        """Embed one prompt; text beyond the 77 tokens is ignored.

        One text per forward: in a batch the last bits would depend on the number of texts.

        Shapes:
            returns: (1, T, D), the text encoder's dtype, on the device; shared, must not be written to.

        Source:
            diffusers `StableDiffusionPipeline.encode_prompt`.
        """
        embeds = self._cache.get(prompt)
        if embeds is None:
            embeds = self._embed(prompt)
            self._cache.put(prompt, embeds)
        return embeds

    def cut(self, prompt: str) -> str | None:
        """Return the end of the prompt that exceeds the 77 tokens, as written; None if all fits."""
        max_length = self._tokenizer.model_max_length
        # verbose=False: no log line for a long prompt, because the response already has a warning
        tokens = self._tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        if len(tokens.input_ids) <= max_length:
            return None
        first_lost = max_length - 1  # the last position belongs to the end-of-text token
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
