"""Judgements of stored images by CLIP and the pretrained classifier, cached on disk.

Imports no database and no HTTP framework. Runs on the event loop of the API process; a thread pool reads the files and
the cache. A cancelled run leaves its judgements in the cache, and the next run continues from there.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.engine.request import Priority
from app.errors import InferenceFailed, Invalid, NotFound, PayloadTooLarge, QueueFull, StorageFull, UnsupportedImage
from app.services.inference.service import TEXTS_AT_ONCE, Inference
from app.services.limits import Limits
from app.services.process.thread_pools import Pools
from app.storage.features import FeatureCache, feature_key
from app.storage.image_formats import decode_image
from app.storage.layout import DataFolder

T = TypeVar("T")

# Concurrent requests to the engine: enough for full batches, few compared with the engine's queue.
CONCURRENCY = 8
# Retries of a request while the engine's queue is full, before the run fails.
MAX_WAITS = 60
MAX_WAIT_S = 5


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image to judge: its path in the data folder, and the expected hash of its file."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """The outputs of the models for one image.

    Attributes:
        embedding: (D,), float32, CLIP's image embedding of norm 1.
        logits: (T,), float32, CLIP's `logits_per_image` for each text.
        label: Index of the pretrained classifier's most probable class.
    """

    embedding: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    label: int


class ImageJudge:
    """Judges many images at background priority."""

    def __init__(
        self, folder: DataFolder, inference: Inference, cache: FeatureCache, limits: Limits, pools: Pools
    ) -> None:
        """Wire the judge; `folder` is the node's data folder."""
        self._folder = folder
        self._inference = inference
        self._cache = cache
        self._limits = limits
        self._pool = pools.reports

    async def judge(
        self, images: Sequence[StoredImage], texts: Sequence[str], *, caller: str = ""
    ) -> list[Judgement | None]:
        """Judge images against texts, in their order; None for a missing or damaged file, or if a model fails on it.

        Args:
            images: The images.
            texts: The texts that CLIP compares each image with, at least one.
            caller: Whose request it is.

        Raises:
            ModelNotReady: A model is not loaded.
            QueueFull: The engine's queue stayed full for too long.
            Unavailable: The cache cannot be written, or the files cannot be read.
        """
        keys = self._keys(images, texts)
        arrays = await self._pool.run(lambda: [self._cache.get(key) for key in keys])
        missing = iter([index for index, array in enumerate(arrays) if array is None])

        async def work(indexes: Iterator[int]) -> None:
            for index in indexes:
                arrays[index] = await self._array(images[index], keys[index], texts, caller)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(work(missing))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [None if array is None else _judgement(array, len(texts)) for array in arrays]

    def _keys(self, images: Sequence[StoredImage], texts: Sequence[str]) -> list[str]:
        pack = self._inference.pack
        # Parts from local folders have no revision; their paths distinguish them from the pack's parts.
        models = f"{pack.name}@{pack.revision} {sorted((part, str(path)) for part, path in pack.overrides.items())}"
        asked = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        return [feature_key(image.sha256, models, f"judgement of {asked}") for image in images]

    async def _array(
        self, image: StoredImage, key: str, texts: Sequence[str], caller: str
    ) -> npt.NDArray[np.float32] | None:
        """Run the models on one image and cache the result: embedding, logits and label in one array."""
        try:
            picture = await self._pool.run(partial(self._decode, image))
            parts = await self._clip(picture, texts, caller)
            classify = partial(self._inference.classify, lambda: picture, priority=Priority.BACKGROUND, caller=caller)
            probabilities = await _retry_while_full(classify)
        except (NotFound, Invalid, PayloadTooLarge, UnsupportedImage, InferenceFailed):
            return None
        array = np.concatenate([*parts, [probabilities.argmax()]]).astype(np.float32)
        with suppress(StorageFull):  # a report needs no disk space; the next one runs the models again
            await self._pool.run(partial(self._cache.put, key, array))
        return array

    async def _clip(self, picture: Image.Image, texts: Sequence[str], caller: str) -> list[npt.NDArray[np.float32]]:
        """Return the picture's embedding, then its logits in parts."""
        parts: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            score = partial(self._inference.score, lambda: picture, some, priority=Priority.BACKGROUND, caller=caller)
            scores = await _retry_while_full(score)
            parts = [scores.image_embed, *parts[1:], np.array(scores.logits, dtype=np.float32)]
        return parts

    def _decode(self, image: StoredImage) -> Image.Image:
        data = self._folder.read(image.path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise NotFound  # a replaced file must not be judged under the recorded hash
        return decode_image(data, max_bytes=self._limits.upload_bytes, max_pixels=self._limits.upload_pixels)


async def _retry_while_full(request: Callable[[], Awaitable[T]]) -> T:
    """Send a request to the engine; while its queue is full, retry up to `MAX_WAITS` times, at most 5 s apart."""
    for _ in range(MAX_WAITS):
        try:
            return await request()
        except QueueFull as error:
            await asyncio.sleep(min(error.retry_after_s or 1, MAX_WAIT_S))
    return await request()


def _judgement(array: npt.NDArray[np.float32], num_texts: int) -> Judgement:
    return Judgement(array[: -num_texts - 1], array[-num_texts - 1 : -1], int(array[-1]))
