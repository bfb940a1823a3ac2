"""CLIP's embeddings of texts and images.

Runs on the event loop of the API process; tokenizing and decoding run on pool threads.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from PIL import Image

from app.access.caller import Caller
from app.engine.request import Priority
from app.errors import FieldError, Invalid, PayloadTooLarge, UnsupportedImage
from app.services.inference.preprocessing import PictureRequest
from app.services.inference.service import TEXTS_AT_ONCE, Inference
from app.services.limits import Limits
from app.services.scoring.service import Upload
from app.storage.image_formats import DecodeImage, decode_image
from app.storage.picture_size import is_large


class EmbeddingService:
    """Embeddings in CLIP's common space of texts and images, each of length 1."""

    def __init__(self, inference: Inference, limits: Limits, *, decode: DecodeImage = decode_image) -> None:
        """Wire the service; `decode` reads untrusted image files."""
        self._inference = inference
        self._limits = limits
        self._decode = decode

    async def texts(self, texts: Sequence[str], caller: Caller) -> list[np.ndarray]:
        """Return the embedding of each text, (D,) float32; of a long text, that of its first 77 tokens.

        Raises:
            ModelNotReady, QueueFull, InferenceFailed: As `Inference`.
        """
        rows: list[np.ndarray] = []
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[first : first + TEXTS_AT_ONCE]
            found = await self._inference.embed_texts(some, priority=Priority.INTERACTIVE, caller=caller.id)
            rows.extend(found.embeddings)
        return rows

    async def images(self, uploads: Sequence[Upload], caller: Caller) -> list[np.ndarray]:
        """Return the embedding of each image, (D,) float32; one after the other.

        Raises:
            Invalid, UnsupportedImage, PayloadTooLarge: An image cannot be used; the fault names it.
            ModelNotReady, QueueFull, InferenceFailed: As `Inference`.
        """
        owner = PictureRequest(is_large=any(is_large(upload.data) for upload in uploads))
        return [await self._image(upload, owner, caller) for upload in uploads]

    async def _image(self, upload: Upload, owner: PictureRequest, caller: Caller) -> np.ndarray:
        try:
            # The embedding does not depend on the text, which the runner needs.
            scores = await self._inference.score(partial(self._load, upload), [""], owner=owner, caller=caller.id)
        except (Invalid, PayloadTooLarge, UnsupportedImage) as error:
            error.errors = (FieldError(upload.pointer, error.detail, error.code),)
            raise
        return scores.image_embed

    def _load(self, upload: Upload) -> Image.Image:
        """Decode an image; called on preparation threads."""
        return self._decode(upload.data, max_bytes=self._limits.upload_bytes, max_pixels=self._limits.upload_pixels)
