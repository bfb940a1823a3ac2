"""CLIP: how well texts describe an image. One step serves all requests of a batch.

Knows `CLIPModel` and its processor, nothing of files or requests over the wire; runs on the device thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.engine.request import EngineRequest
from app.errors import InferenceFailed


@dataclass(frozen=True, slots=True)
class ClipPayload:
    """One image (RGB) and the texts to compare it with, >= 1."""

    image: Image.Image
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClipScores:
    """How one image compares with each of its texts, in their order.

    Attributes:
        probabilities: Softmax of the logits over the texts.
        logits: `logits_per_image`: cosines times the model's learned scale.
        cosines: Between image and text embedding, -1 ... 1.
        image_embed: (D,), float32, of length 1.
    """

    probabilities: tuple[float, ...]
    logits: tuple[float, ...]
    cosines: tuple[float, ...]
    image_embed: np.ndarray


@dataclass(slots=True)
class _Comparison:
    """One request on its way: inputs from prepare, scores from step."""

    pixel_values: torch.Tensor
    token_ids: list[list[int]]
    scores: ClipScores | None = None


class ClipRunner:
    """Image-text scores, equal to `CLIPModel(**processor(...)).logits_per_image` for each request alone."""

    def __init__(self, *, model: Any, processor: Any, device: torch.device) -> None:
        """Take a `CLIPModel` on the device, in eval mode, and its `CLIPProcessor`."""
        self._model = model
        self._processor = processor
        self._device = device
        self._max_tokens = model.config.text_config.max_position_embeddings

    def prepare(self, request: EngineRequest) -> None:
        """Resize the image and tokenize the texts; texts beyond 77 tokens are truncated."""
        payload = request.payload
        assert isinstance(payload, ClipPayload)
        pixel_values = self._processor.image_processor(images=payload.image, return_tensors="pt").pixel_values
        token_ids = self._processor.tokenizer(
            list(payload.texts), truncation=True, max_length=self._max_tokens
        ).input_ids
        request.state = _Comparison(pixel_values, token_ids)

    @torch.inference_mode()
    def step(self, requests: Sequence[EngineRequest]) -> None:
        """Compare all images with all texts in one forward; each request keeps its own block.

        Shapes:
            logits_per_image: (B, number of texts of all requests).

        Source:
            transformers `CLIPModel.forward`.
        """
        comparisons: list[_Comparison] = [request.state for request in requests]
        texts = self._processor.tokenizer.pad(
            {"input_ids": [ids for comparison in comparisons for ids in comparison.token_ids]}, return_tensors="pt"
        )
        outputs = self._model(
            input_ids=texts.input_ids.to(self._device),
            attention_mask=texts.attention_mask.to(self._device),
            pixel_values=torch.cat([comparison.pixel_values for comparison in comparisons]).to(
                self._device, self._model.dtype
            ),
        )
        logits = outputs.logits_per_image.float().cpu()
        cosines = logits / self._model.logit_scale.exp().float().cpu()
        image_embeds = outputs.image_embeds.float().cpu().numpy()
        first = 0
        for row, comparison in enumerate(comparisons):
            own = slice(first, first + len(comparison.token_ids))
            comparison.scores = ClipScores(
                probabilities=tuple(logits[row, own].softmax(dim=0).tolist()),
                logits=tuple(logits[row, own].tolist()),
                cosines=tuple(cosines[row, own].tolist()),
                image_embed=image_embeds[row].copy(),
            )
            first = own.stop

    def is_finished(self, request: EngineRequest) -> bool:
        """One step is all."""
        return True

    def finish(self, request: EngineRequest) -> ClipScores:
        """Hand over the scores.

        Raises:
            InferenceFailed: They are no numbers.
        """
        scores: ClipScores = request.state.scores
        if not np.isfinite(scores.logits).all():
            raise InferenceFailed("The model's answer is not a number.")
        return scores
