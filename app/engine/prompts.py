"""Prompts to embeddings, as StableDiffusionPipeline makes them.

Knows the tokenizer and the text encoder, nothing of images. Runs on the device thread.
"""

from typing import Any

import torch


class PromptEncoder:
    """CLIP's text encoder over 77 tokens."""

    def __init__(self, tokenizer: Any, text_encoder: Any, device: torch.device) -> None:
        """Take the pack's tokenizer and text encoder, the latter on the device and in eval mode."""
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._device = device

    def encode(self, prompt: str) -> torch.Tensor:
        """Embed one prompt; what does not fit into the tokens is left out.

        Shapes:
            returns: (1, T, D), the text encoder's dtype, on the device.

        Source:
            diffusers `StableDiffusionPipeline.encode_prompt`.
        """
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

    def cut(self, prompt: str) -> str | None:
        """Return the end of the prompt that does not fit into the tokens, as it was written; None if all fits."""
        max_length = self._tokenizer.model_max_length
        # verbose=False: a prompt that is too long is no news, the caller gets a warning of its own
        tokens = self._tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        if len(tokens.input_ids) <= max_length:
            return None
        first_lost = max_length - 1  # the last place belongs to the end-of-text token
        return prompt[tokens.offset_mapping[first_lost][0] :]
