"""Features and classifications by the node's backbones: pictures in memory in, arrays out.

Imports neither HTTP nor SQL. Runs on the API process's event loop; pictures are prepared on the pool's threads, so that
decoding and resizing of the next images run beside the forward of the last.
"""

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.engine.engine import Engine
from app.engine.request import Priority
from app.engine.resnet import Classification, ClassifyPayload
from app.error_codes import ErrorCode
from app.errors import Conflict, Invalid
from app.modelpacks.preprocessing import Preprocessing
from app.node.combined import combine_rows, is_combined, parts_to_run
from app.node.protocol import PACK_BACKBONE, BackboneFacts
from app.services.images.hand_views import LOOKS, make_view
from app.services.inference.backbone_descriptions import LoadedBackbone
from app.services.inference.backbones import Backbones
from app.services.inference.preprocessing import PreparationPool
from app.storage.features import FLIP, PLAIN, crop_number, hand_number

LoadImage = Callable[[], Image.Image]

# Images of all batches that are prepared, or wait for the engine, or are in it, at a time: one forward of 32, and most
# of the next. Fewer than the engine's queue of 64 takes, so that batches leave room for others.
IMAGES_AHEAD = 56


class Features:
    """Runs backbones on images."""

    def __init__(
        self, engine: Engine, preparation: PreparationPool, backbones: Backbones, *, images_ahead: int = IMAGES_AHEAD
    ) -> None:
        """Use a started engine; `images_ahead` bounds the images of batches that are in work at once, >= 1."""
        self._engine = engine
        self._preparation = preparation
        self._backbones = backbones
        self._ahead = asyncio.Semaphore(images_ahead)

    async def of_image(
        self,
        load: LoadImage,
        *,
        backbone: str = PACK_BACKBONE,
        weights_sha256: str | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        priority: Priority = Priority.INTERACTIVE,
        owner: object = None,
        caller: str = "",
    ) -> np.ndarray:
        """Return a backbone's features of an image, (D,) float32.

        Args:
            load: Returns the image; called on a preparation thread.
            backbone: Its name.
            weights_sha256: The weights that must be loaded; None: any.
            preprocessing: Settings as `Preprocessing.to_json`; None: the backbone's own.
            priority: Interactive requests go first.
            owner: The request that the image belongs to.
            caller: Whose request it is.

        Raises:
            Invalid: `backbone_not_found`.
            Conflict: `backbone_changed`: other weights are loaded.
            ModelNotReady, QueueFull, InferenceFailed: As `Inference`.
        """
        if is_combined(backbone):
            facts = preprocessing or self._backbones.describe(backbone).facts.preprocessing
            image = await self._preparation.run(load, owner=owner, caller=caller)  # once for all parts

            def decoded() -> Image.Image:
                return image

            rows = [
                await self.of_image(decoded, **part, priority=priority, owner=owner, caller=caller)
                for part in parts_to_run(facts)
            ]
            return combine_rows(rows)
        async with self._backbones.use(backbone) as loaded:
            if weights_sha256 is not None:
                _require(loaded.description.facts, weights_sha256)
            pixels_of = loaded.input.pixels
            if preprocessing is not None and preprocessing != loaded.description.facts.preprocessing:
                pixels_of = Preprocessing.from_config(preprocessing).transform()
            pixels = await self._preparation.run(lambda: pixels_of(load()), owner=owner, caller=caller)
            return await self._run(loaded, pixels, priority, caller)

    async def of_images(
        self,
        images: Sequence[LoadImage],
        *,
        backbone: str,
        weights_sha256: str,
        views: Sequence[str] = (PLAIN,),
        seeds: Sequence[bytes] = (),
        caller: str = "",
    ) -> np.ndarray:
        """Return the features of a batch of images, (N, V, D) float32, behind interactive requests.

        Args:
            images: N >= 1 functions that return an image, each called once, on a preparation thread.
            backbone: Its name.
            weights_sha256: The weights that must be loaded.
            views: V >= 1 views of each image.
            seeds: For random views: what each image's draws follow from; N items.
            caller: Whose batch it is.

        Raises:
            Conflict: `backbone_changed`: other weights are loaded.
            Invalid: A view is unknown, or there is no such backbone.
            ModelNotReady, InferenceFailed: As `Inference`.
        """
        check_views(views)
        asker = (object(), caller)
        async with self._backbones.use(backbone) as loaded:
            _require(loaded.description.facts, weights_sha256)
            tasks = [
                asyncio.ensure_future(self._of_views(loaded, load, views, seeds[row] if seeds else b"", asker))
                for row, load in enumerate(images)
            ]
            try:
                return np.stack(await asyncio.gather(*tasks))
            finally:  # when one fails, the others leave the engine
                for task in tasks:
                    task.cancel()

    async def classify(
        self,
        load: LoadImage,
        *,
        backbone: str,
        priority: Priority = Priority.INTERACTIVE,
        owner: object = None,
        caller: str = "",
    ) -> np.ndarray:
        """Return the probabilities of a backbone's own head, (K,) float32."""
        async with self._backbones.use(backbone) as loaded:
            pixels = await self._preparation.run(lambda: loaded.input.pixels(load()), owner=owner, caller=caller)
            submitted = self._engine.submit(loaded.model, ClassifyPayload(pixels), priority=priority, caller=caller)
            result: Classification = await asyncio.wrap_future(submitted)
        return result.probabilities

    async def _of_views(
        self,
        loaded: LoadedBackbone,
        load: LoadImage,
        views: Sequence[str],
        seed: bytes,
        asker: tuple[object, str],
    ) -> np.ndarray:
        owner, caller = asker
        async with self._ahead:
            drawing = partial(_draw_views, loaded, load, views, seed)
            pixels = await self._preparation.run(drawing, owner=owner, caller=caller)
            rows = [await self._run(loaded, view, Priority.BACKGROUND, caller) for view in pixels]
        return np.stack(rows)

    async def _run(self, loaded: LoadedBackbone, pixels: torch.Tensor, priority: Priority, caller: str) -> np.ndarray:
        submitted = self._engine.submit(loaded.model, loaded.input.payload(pixels), priority=priority, caller=caller)
        return loaded.input.features(await asyncio.wrap_future(submitted))


def check_views(views: Sequence[str]) -> None:
    """Raise Invalid unless every view is known and there is one."""
    if not views or not all(map(_is_known, views)):
        raise Invalid("A view of the batch is unknown. Run API and worker of one release.")


def _is_known(view: str) -> bool:
    hand = hand_number(view)
    return view in (PLAIN, FLIP) or crop_number(view) is not None or (hand is not None and hand < len(LOOKS))


def _require(facts: BackboneFacts, weights_sha256: str) -> None:
    if facts.weights_sha256 != weights_sha256:
        raise Conflict(
            f"The backbone {facts.name} has other weights than those asked for. Load those, or send the request again.",
            code=ErrorCode.BACKBONE_CHANGED,
        )


def _draw_views(loaded: LoadedBackbone, load: LoadImage, views: Sequence[str], seed: bytes) -> list[torch.Tensor]:
    """Prepare the views of one image, which is decoded once."""
    image = load()
    plain = loaded.input.pixels(image) if {PLAIN, FLIP} & set(views) else None
    drawn = []
    for view in views:
        crop, hand = crop_number(view), hand_number(view)
        if crop is not None:
            drawn.append(loaded.input.crop_view(image, _seed(seed, crop.to_bytes(8, "big"))))
        elif hand is not None:
            drawn.append(loaded.input.pixels(make_view(image, LOOKS[hand], _seed(seed, view.encode()))))
        else:
            assert plain is not None  # noqa: S101 - for mypy
            drawn.append(plain if view == PLAIN else plain.flip(-1).contiguous())
    return drawn


def _seed(image_seed: bytes, draw: bytes) -> int:
    return int.from_bytes(hashlib.sha256(image_seed + draw).digest()[:8], "big")
