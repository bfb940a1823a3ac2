"""The node's engine as its worker asks for it: one call for each route of `app/node/protocol.py`.

Runs in the API process, on the event loop.
"""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from app.engine.request import Priority
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.image_spec import RenderedImage
from app.node.protocol import PACK_BACKBONE, BackboneFacts, FeatureBatch, PreviewsOf, RenderRequest, TextEmbeddings
from app.schemas.jobs import JobPlace, JobPreview
from app.services.images.sources import from_files
from app.services.inference.features import LoadImage
from app.services.inference.fine_tuning import FineTuning
from app.services.inference.loaded import CLIP
from app.services.inference.service import TEXTS_AT_ONCE, Inference
from app.services.limits import Limits
from app.storage.image_formats import decode_image


class NodeEngine:
    """What a worker may ask of the engine in the API process; the other end is `app.node.client`."""

    def __init__(
        self,
        inference: Inference,
        limits: Limits,
        fine_tuning: FineTuning,
        show: Callable[[str, JobPreview | JobPlace], None],
    ) -> None:
        """Wire the service; `show` gets a job's id and a preview or the place of an image of it, on the event loop."""
        self._show = show
        self.fine_tuning = fine_tuning
        self._inference = inference
        self._limits = limits

    async def render(self, asked: RenderRequest, *, caller: str = "") -> RenderedImage:
        """Make one image; see `Inference.render`."""
        priority = Priority.BACKGROUND if asked.background else Priority.INTERACTIVE
        pictures = await asyncio.to_thread(from_files, asked.pictures) if asked.pictures else None
        to = asked.previews
        return await self._inference.render(
            asked.spec,
            labels=asked.labels,
            scores_prompt=asked.scores_prompt,
            priority=priority,
            on_step=None if to is None else partial(self._show_step, to),
            preview=None if to is None else to.every,
            on_position=None if asked.job_id is None else partial(self._show_place, asked.job_id),
            caller=caller,
            pictures=pictures,
        )

    def _show_place(self, job_id: str, position: int) -> None:
        self._show(job_id, JobPlace(position))

    def _show_step(self, to: PreviewsOf, done: int, steps: int, preview: bytes | None = None, /) -> None:
        if preview is not None:
            png = base64.b64encode(preview).decode()
            self._show(to.job_id, JobPreview(image=to.image, step=done, steps=steps, preview_png_b64=png))

    async def feature_batch(self, batch: FeatureBatch, *, caller: str = "") -> np.ndarray:
        """Return a backbone's features of a batch of image files, (N, V, D) float32; behind interactive requests."""
        return await self._inference.features.of_images(
            [self._loading(data) for data in batch.images],
            backbone=batch.backbone,
            weights_sha256=batch.weights_sha256,
            views=batch.views,
            seeds=[hashlib.sha256(data).digest() for data in batch.images],
            caller=caller,
        )

    async def texts(self, texts: Sequence[str], *, caller: str = "") -> TextEmbeddings:
        """Return CLIP's embeddings of texts; behind interactive requests.

        Raises:
            Conflict: `model_failed`: CLIP could not be loaded, so that waiting is no use.
        """
        status = self._inference.status().get(CLIP)
        if status is not None and status.state == "failed":
            raise Conflict("CLIP could not be loaded. /readyz has the reason.", code=ErrorCode.MODEL_FAILED)
        parts = [
            await self._inference.embed_texts(texts[start : start + TEXTS_AT_ONCE], caller=caller)
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        return TextEmbeddings(np.concatenate([part.embeddings for part in parts]), parts[0].logit_scale)

    def backbone(self, name: str = PACK_BACKBONE) -> BackboneFacts:
        """Return what features of a backbone depend on besides the image."""
        return self._inference.backbones.describe(name).facts

    def _loading(self, data: bytes) -> LoadImage:
        limits = self._limits
        return partial(decode_image, data, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
