"""CLIP as a model of the engine: the similarity of an image and texts. One step serves all requests of a batch.

Uses `CLIPModel` and its processor; handles no files and no HTTP. The runner runs on the device thread;
`ClipPreparation` is called from any thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.engine.clip.pixels import pixels_by
from app.engine.clip.texts import TextEmbeddings, TokenIds, unit_length
from app.engine.kernels.cpu_clip import optimize_clip
from app.engine.request import EngineRequest
from app.errors import InferenceFailed


@dataclass(frozen=True, slots=True)
class ClipPayload:
    """One image and the texts to compare it with, as inputs of the model.

    Attributes:
        pixels: (3, H, W), float32, normalised.
        texts: Token ids of each text, >= 1 texts.
    """

    pixels: torch.Tensor
    texts: tuple[TokenIds, ...]


@dataclass(frozen=True, slots=True)
class ClipTextsPayload:
    """Texts to embed, as token ids; >= 1 texts."""

    texts: tuple[TokenIds, ...]


@dataclass(frozen=True, slots=True)
class ClipTexts:
    """The embeddings of texts, in their order.

    Attributes:
        embeddings: (T, D), float32, of length 1.
        logit_scale: The model's learned scale of cosines, as a factor.
    """

    embeddings: np.ndarray
    logit_scale: float


@dataclass(frozen=True, slots=True)
class ClipScores:
    """The similarity of one image to each of its texts, in their order.

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


class ClipPreparation:
    """Images and texts to inputs of the model, as in `CLIPProcessor`.

    Attributes:
        pixels: From an image (RGB) to (3, H, W), float32, normalised.
    """

    def __init__(self, processor: Any, *, max_tokens: int) -> None:
        """Take the pack's `CLIPProcessor` and the largest number of tokens of its model."""
        self.pixels = pixels_by(processor.image_processor)
        self._tokenizer = processor.tokenizer
        self._max_tokens = max_tokens
        # A tokenizer stores the settings of its last call, which is not thread-safe: the first call sets them here.
        self.tokenize([""])

    def __call__(self, image: Image.Image, texts: Sequence[str]) -> ClipPayload:
        """Resize and normalise an image (RGB) and tokenize texts, truncated to `max_tokens`."""
        return ClipPayload(self.pixels(image), self.tokenize(texts))

    def texts(self, texts: Sequence[str]) -> ClipTextsPayload:
        """Tokenize texts that are to be embedded without an image."""
        return ClipTextsPayload(self.tokenize(texts))

    def tokenize(self, texts: Sequence[str]) -> tuple[TokenIds, ...]:
        """Return the token ids of each text, truncated to `max_tokens`."""
        token_ids = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens).input_ids
        return tuple(map(tuple, token_ids))


class ClipRunner:
    """Image-text scores, equal to `CLIPModel(**processor(...)).logits_per_image` for each request alone.

    Equal means within 1e-4 for logits and 1e-5 for probabilities in float32: other batch sizes round differently.
    """

    def __init__(self, *, model: Any, device: torch.device) -> None:
        """Take a `CLIPModel` on the device, in eval mode; on the CPU its layers are replaced in place."""
        if device.type == "cpu":
            optimize_clip(model)
        self._model = model
        self._device = device
        self._texts = TextEmbeddings(model, device)

    def prepare(self, request: EngineRequest) -> None:
        """Do nothing: `ClipPreparation` prepared the payload before the request was queued."""
        assert isinstance(request.payload, ClipPayload | ClipTextsPayload)

    @torch.inference_mode()
    def step(self, requests: Sequence[EngineRequest]) -> None:
        """Compare all images with all texts, and embed the texts of requests without an image."""
        for request in requests:
            if isinstance(request.payload, ClipTextsPayload):
                request.state = self._embed(request.payload.texts)
        with_image = [request for request in requests if isinstance(request.payload, ClipPayload)]
        if with_image:
            self._compare(with_image)

    def _embed(self, texts: Sequence[TokenIds]) -> ClipTexts:
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        embeddings = self._texts.embed(list(rows)).cpu().numpy()
        scale = float(self._model.logit_scale.exp())
        return ClipTexts(embeddings[[rows[text] for text in texts]], scale)

    def _compare(self, requests: Sequence[EngineRequest]) -> None:
        """Compare all images with all texts: one forward of the image tower, none for cached texts.

        Shapes:
            logits: (B, number of different texts of all requests), float32.

        Source:
            transformers `CLIPModel.forward`.
        """
        payloads: list[ClipPayload] = [request.payload for request in requests]  # type: ignore[misc]
        columns = {text: i for i, text in enumerate(dict.fromkeys(text for p in payloads for text in p.texts))}
        text_embeds = self._texts.embed(list(columns))
        pixels = torch.stack([payload.pixels for payload in payloads]).to(self._device, self._model.dtype)
        image_embeds = unit_length(self._model.get_image_features(pixel_values=pixels).pooler_output)
        cosines = image_embeds @ text_embeds.T
        logits = (self._model.logit_scale.exp().float() * cosines).cpu()
        cosines, embeds = cosines.cpu(), image_embeds.cpu().numpy()
        for row, (request, payload) in enumerate(zip(requests, payloads, strict=True)):
            own = [columns[text] for text in payload.texts]
            request.state = ClipScores(
                probabilities=tuple(logits[row, own].softmax(dim=0).tolist()),
                logits=tuple(logits[row, own].tolist()),
                cosines=tuple(cosines[row, own].tolist()),
                image_embed=embeds[row].copy(),
            )

    def is_finished(self, request: EngineRequest) -> bool:
        """Return True: one step is all."""
        return True

    def finish(self, request: EngineRequest) -> ClipScores | ClipTexts:
        """Return the scores, or the embeddings.

        Raises:
            InferenceFailed: A value is not a finite number.
        """
        result: ClipScores | ClipTexts = request.state
        values = result.embeddings if isinstance(result, ClipTexts) else np.array(result.logits)
        if not np.isfinite(values).all():
            raise InferenceFailed("The model returned a value that is not a finite number.")
        return result
