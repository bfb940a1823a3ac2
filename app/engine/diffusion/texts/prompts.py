"""Prompts to embeddings, as StableDiffusionPipeline computes them, with a cache.

Uses the pack's tokenizer and text encoder; handles no images and no requests. Runs on the device thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from app.engine.cache import ByteBoundedCache
from app.engine.diffusion.texts.weighted_prompts import Token, Tokens, chunks_of, tokenize
from app.error_codes import ErrorCode
from app.errors import Invalid

# About 270 prompts of Stable Diffusion v1.5 in float32; datasets and negative prompts repeat a handful.
CACHE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Reading:
    """How a prompt is read.

    Attributes:
        is_weighted: Whether brackets give weights, and long prompts are read in chunks; else they are text.
        clip_skip: Layers of the text encoder that are left out at its end; None: none is.
    """

    is_weighted: bool = False
    clip_skip: int | None = None


PLAIN = Reading()


class PromptEncoder:
    """CLIP's text encoder over 77 tokens, with a cache of its latest embeddings."""

    def __init__(self, tokenizer: Any, text_encoder: Any, device: torch.device, cache_bytes: int = CACHE_BYTES) -> None:
        """Take the pack's tokenizer and text encoder, the latter on the device and in eval mode."""
        self._tokenizer = tokenizer
        self._text_encoder = text_encoder
        self._device = device
        self._chunk_size = tokenizer.model_max_length - 2  # start and end of the text are tokens too
        self._cache = ByteBoundedCache[tuple[str, Reading], torch.Tensor](
            cache_bytes, lambda _prompt, embeds: embeds.nbytes
        )

    def encode(self, prompt: str, reading: Reading = PLAIN) -> torch.Tensor:
        """Embed one prompt; text beyond the 77 tokens, or beyond the last chunk, is ignored.

        One text per forward: in a batch the last bits would depend on the number of texts.

        Shapes:
            returns: (1, T, D), the text encoder's dtype, on the device; shared, must not be written to. T is 77, or
                77 times the chunks of a weighted prompt.

        Raises:
            Invalid: The text encoder has no layer more than `clip_skip`.

        Source:
            diffusers `StableDiffusionPipeline.encode_prompt`.
        """
        embeds = self._cache.get((prompt, reading))
        if embeds is None:
            embeds = self._embed_weighted(prompt, reading) if reading.is_weighted else self._embed(prompt, reading)
            self._cache.put((prompt, reading), embeds)
        return embeds

    def encode_alike(self, prompts: Sequence[str], reading: Reading = PLAIN) -> torch.Tensor:
        """Embed prompts of one image; shorter ones get chunks of the empty prompt behind them.

        Shapes:
            returns: (number of prompts, T, D).

        Raises:
            Invalid: As `encode`.
        """
        embeds = [self.encode(prompt, reading) for prompt in prompts]
        longest = max(one.shape[1] for one in embeds)
        if all(one.shape[1] == longest for one in embeds):
            return torch.cat(embeds)
        filling = self.encode("", reading)
        return torch.cat(
            [torch.cat([one, *[filling] * ((longest - one.shape[1]) // filling.shape[1])], dim=1) for one in embeds]
        )

    def cut(self, prompt: str, reading: Reading = PLAIN) -> str | None:
        """Return the end of the prompt that exceeds the tokens that are used, as written; None if all fits."""
        if reading.is_weighted:
            return self._tokens(prompt).cut
        max_length = self._tokenizer.model_max_length
        # verbose=False: no log line for a long prompt, because the response already has a warning
        tokens = self._tokenizer(prompt, return_offsets_mapping=True, verbose=False)
        if len(tokens.input_ids) <= max_length:
            return None
        first_lost = max_length - 1  # the last position belongs to the end-of-text token
        return prompt[tokens.offset_mapping[first_lost][0] :]

    def _embed(self, prompt: str, reading: Reading) -> torch.Tensor:
        inputs = self._tokenizer(
            prompt,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return self._run(inputs.input_ids, inputs.attention_mask, reading.clip_skip)

    def _embed_weighted(self, prompt: str, reading: Reading) -> torch.Tensor:
        """Embed every chunk alone, between start and end of a text, and multiply its tokens by their weights."""
        parts = []
        for chunk in chunks_of(self._tokens(prompt).tokens, self._chunk_size):
            ids, mask = self._framed(chunk)
            weights = torch.ones(1, ids.shape[1], 1, device=self._device, dtype=self._text_encoder.dtype)
            weights[0, 1 : 1 + len(chunk), 0] = torch.tensor([token.weight for token in chunk])
            parts.append(self._run(ids, mask, reading.clip_skip) * weights)
        return torch.cat(parts, dim=1)

    def _tokens(self, prompt: str) -> Tokens:
        def token_ids(text: str) -> list[tuple[int, int]]:
            found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            return [(token, start) for token, (start, _) in zip(found.input_ids, found.offset_mapping, strict=True)]

        return tokenize(prompt, token_ids, self._chunk_size)

    def _framed(self, chunk: Sequence[Token]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return token ids and attention mask of a chunk, padded as the tokenizer pads. **Shapes**: (1, T) both."""
        tokenizer, padding = self._tokenizer, self._chunk_size - len(chunk)
        ids = [tokenizer.bos_token_id, *(token.id for token in chunk), tokenizer.eos_token_id]
        mask = [1] * len(ids) + [0] * padding
        return torch.tensor([ids + [tokenizer.pad_token_id] * padding]), torch.tensor([mask])

    def _run(self, ids: torch.Tensor, mask: torch.Tensor, clip_skip: int | None) -> torch.Tensor:
        """Run the text encoder over one text. **Shapes**: (1, T) both; returns (1, T, D)."""
        uses_mask = getattr(self._text_encoder.config, "use_attention_mask", False)
        inputs = {"input_ids": ids.to(self._device), "attention_mask": mask.to(self._device) if uses_mask else None}
        if clip_skip is None:
            embeds: torch.Tensor = self._text_encoder(**inputs)[0]
            return embeds.to(dtype=self._text_encoder.dtype)
        num_layers = self._text_encoder.config.num_hidden_layers
        if clip_skip >= num_layers:
            detail = (
                f"The loaded model's text encoder has {num_layers} layers; at most {num_layers - 1} can be skipped."
            )
            raise Invalid.field("#/clip_skip", detail, ErrorCode.CLIP_SKIP_NOT_SUPPORTED)
        states = self._text_encoder(**inputs, output_hidden_states=True).hidden_states
        embeds = _final_norm(self._text_encoder)(states[-1 - clip_skip])
        return embeds.to(dtype=self._text_encoder.dtype)


def _final_norm(text_encoder: Any) -> Any:
    """Return the layer that the encoder's last states pass."""
    return getattr(text_encoder, "text_model", text_encoder).final_layer_norm
