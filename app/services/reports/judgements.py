"""What CLIP and the pretrained classifier say of stored images, each asked once: the answers are kept on disk.

Runs on the event loop of the API process; files are read and arrays kept on other threads. A run that is cancelled
leaves what it has learnt in the cache, so that the next one goes on from there.
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
from app.services.thread_pools import Pools
from app.storage.features import FeatureCache, feature_key
from app.storage.images import decode_image
from app.storage.layout import DataFolder

T = TypeVar("T")

# Enough that the engine finds a batch waiting, few beside the requests that its queue holds for others.
CONCURRENCY = 8
# A full queue is waited for this often before the run gives up; what it has learnt is kept.
MAX_WAITS = 60
MAX_WAIT_S = 5


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image to be judged: where it lies, and the hash that its file must have."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the models say of one image.

    Attributes:
        embedding: (D,), float32, CLIP's, of length 1.
        logits: (T,), float32, CLIP's `logits_per_image` for each text.
        label: Index of the pretrained classifier's most probable class.
    """

    embedding: npt.NDArray[np.float32]
    logits: npt.NDArray[np.float32]
    label: int


class ImageJudge:
    """Judges many images behind everything that somebody waits for."""

    def __init__(
        self, folder: DataFolder, inference: Inference, cache: FeatureCache, limits: Limits, pools: Pools
    ) -> None:
        """Wire the judge; `folder` is the node's data folder."""
        self._folder = folder
        self._inference = inference
        self._cache = cache
        self._limits = limits
        self._pool = pools.reports

    async def judge(self, images: Sequence[StoredImage], texts: Sequence[str]) -> list[Judgement | None]:
        """Judge images against texts, in their order; None where a file is gone or damaged, or a model fails on it.

        Args:
            images: The images.
            texts: What CLIP compares each with, >= 1.

        Raises:
            ModelNotReady: A model is not loaded.
            QueueFull: Others kept the engine busy for too long.
            Unavailable: The answers cannot be kept, or the files not be read.
        """
        keys = self._keys(images, texts)
        arrays = await self._pool.run(lambda: [self._cache.get(key) for key in keys])
        missing = iter([index for index, array in enumerate(arrays) if array is None])

        async def work(places: Iterator[int]) -> None:
            for index in places:
                arrays[index] = await self._array(images[index], keys[index], texts)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONCURRENCY):
                    group.create_task(work(missing))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return [None if array is None else _judgement(array, len(texts)) for array in arrays]

    def _keys(self, images: Sequence[StoredImage], texts: Sequence[str]) -> list[str]:
        pack = self._inference.pack
        # Parts from local folders have no revision; their places tell them apart from the pack's.
        models = f"{pack.name}@{pack.revision} {sorted((part, str(path)) for part, path in pack.overrides.items())}"
        asked = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        return [feature_key(image.sha256, models, f"judgement of {asked}") for image in images]

    async def _array(self, image: StoredImage, key: str, texts: Sequence[str]) -> npt.NDArray[np.float32] | None:
        """Ask the models about one image and keep the answer: embedding, logits, label in one array."""
        try:
            picture = await self._pool.run(partial(self._decode, image))
            parts = await self._clip(picture, texts)
            classify = partial(self._inference.classify, lambda: picture, priority=Priority.BACKGROUND)
            probabilities = await _patiently(classify)
        except (NotFound, Invalid, PayloadTooLarge, UnsupportedImage, InferenceFailed):
            return None
        array = np.concatenate([*parts, [probabilities.argmax()]]).astype(np.float32)
        with suppress(StorageFull):  # a report is read where there is no room, too; the next one asks again
            await self._pool.run(partial(self._cache.put, key, array))
        return array

    async def _clip(self, picture: Image.Image, texts: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        """Return the picture's embedding, then its logits in parts."""
        parts: list[npt.NDArray[np.float32]] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            some = texts[start : start + TEXTS_AT_ONCE]
            score = partial(self._inference.score, lambda: picture, some, priority=Priority.BACKGROUND)
            scores = await _patiently(score)
            parts = [scores.image_embed, *parts[1:], np.array(scores.logits, dtype=np.float32)]
        return parts

    def _decode(self, image: StoredImage) -> Image.Image:
        data = self._folder.read(image.path)
        if hashlib.sha256(data).hexdigest() != image.sha256:
            raise NotFound  # another file in its place must not be judged under its name
        return decode_image(data, max_bytes=self._limits.upload_bytes, max_pixels=self._limits.upload_pixels)


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again, seconds later, as long as the engine's queue is full of other requests."""
    for _ in range(MAX_WAITS):
        try:
            return await ask()
        except QueueFull as error:
            await asyncio.sleep(min(error.retry_after_s or 1, MAX_WAIT_S))
    return await ask()


def _judgement(array: npt.NDArray[np.float32], num_texts: int) -> Judgement:
    return Judgement(array[: -num_texts - 1], array[-num_texts - 1 : -1], int(array[-1]))
