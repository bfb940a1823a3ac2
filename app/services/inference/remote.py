"""The node's engine as its worker asks for it: plain JSON in, bytes and arrays out."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from app.engine.request import Priority
from app.services.images.spec import ImageSpec, RenderedImage
from app.services.inference.service import Inference
from app.services.limits import Limits
from app.storage.images import decode_image


class NodeEngine:
    """What a worker may ask of the engine in the API process; the other end is `app.node.client`."""

    def __init__(self, inference: Inference, limits: Limits) -> None:
        """Wire the service."""
        self._inference = inference
        self._limits = limits

    def is_loading(self) -> bool:
        """Tell whether any model is still on its way up."""
        return any(status.state == "loading" for status in self._inference.status().values())

    async def render(self, spec: dict[str, Any], *, labels: Sequence[str] | None, background: bool) -> RenderedImage:
        """Make one image; see `Inference.render`."""
        priority = Priority.BACKGROUND if background else Priority.INTERACTIVE
        return await self._inference.render(ImageSpec(**spec), labels=labels, priority=priority)

    async def features(self, data: bytes) -> np.ndarray:
        """Return the backbone's features of an image file, (D,) float32; behind interactive requests."""
        limits = self._limits
        load = partial(decode_image, data, max_bytes=limits.upload_bytes, max_pixels=limits.upload_pixels)
        return await self._inference.features(load, priority=Priority.BACKGROUND)

    def backbone(self) -> dict[str, Any]:
        """Return what features depend on besides the image."""
        return asdict(self._inference.backbone)
