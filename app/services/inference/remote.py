"""The node's engine as its worker asks for it: one call for each route of `app/node/protocol.py`.

Runs in the API process, on the event loop.
"""

from functools import partial

import numpy as np

from app.engine.request import Priority
from app.image_spec import RenderedImage
from app.node.protocol import BackboneFacts, RenderRequest
from app.services.inference.service import Inference
from app.services.limits import Limits
from app.storage.images import decode_image


class NodeEngine:
    """What a worker may ask of the engine in the API process; the other end is `app.node.client`."""

    def __init__(self, inference: Inference, limits: Limits) -> None:
        """Wire the service."""
        self._inference = inference
        self._limits = limits

    async def render(self, asked: RenderRequest) -> RenderedImage:
        """Make one image; see `Inference.render`."""
        priority = Priority.BACKGROUND if asked.background else Priority.INTERACTIVE
        return await self._inference.render(asked.spec, labels=asked.labels, priority=priority)

    async def features(self, data: bytes) -> np.ndarray:
        """Return the backbone's features of an image file, (D,) float32; behind interactive requests."""
        limits = self._limits
        load = partial(decode_image, data, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
        return await self._inference.features(load, priority=Priority.BACKGROUND)

    def backbone(self) -> BackboneFacts:
        """Return what features depend on besides the image."""
        return self._inference.backbone
