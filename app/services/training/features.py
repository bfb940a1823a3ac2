"""The features of a dataset's images for a train job: from the cache, or from the node's engine in batches.

Imports no model and no torch. Runs in the worker process, on the threads of the job.
"""

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from app.errors import FileLost, StorageFull, Unavailable
from app.jobs.handler import JobContext
from app.logs.context import carried
from app.node.client import NodeClient
from app.node.combined import combine_rows
from app.node.protocol import BATCH_BYTES, FeatureBatch
from app.services.images.lost_files import IMAGE_CODES, LostImage, refusal_of_all
from app.services.jobs.wait_policy import load, wait_policy
from app.services.training.payloads import Backbone, Stretch
from app.storage.features import PLAIN, FeatureCache, view_key
from app.storage.soundness import FileChecks, LostFile

logger = logging.getLogger(__name__)

# Images of one request to the engine.
BATCH_IMAGES = 64
# Requests at a time: while the engine finishes one, it prepares the images of the next.
BATCHES_AHEAD = 2
# Images of a chunk that have to be computed. A chunk costs up to a second of polling, and starts again after a kill.
CHUNK_MISSING = 256
# Images that a chunk may span, cached ones included.
CHUNK_SPAN = 4_096


class FeatureSource:
    """Features by image, backbone and view."""

    def __init__(self, checks: FileChecks, cache: FeatureCache, node: NodeClient) -> None:
        """Use these services."""
        self._checks = checks
        self._cache = cache
        self._node = node

    def missing(self, images: Sequence[Any], backbone: Backbone, views: Sequence[str] = (PLAIN,)) -> list[Stretch]:
        """Return the stretches of a list of images that contain all images whose features are not cached."""
        stretches: list[Stretch] = []
        num_missing = 0
        for position, image in enumerate(images):
            if self._is_cached(image, backbone, views):
                continue
            if not stretches or num_missing == CHUNK_MISSING or position - stretches[-1].start >= CHUNK_SPAN:
                stretches.append(Stretch(position, 0))
                num_missing = 0
            num_missing += 1
            stretches[-1] = Stretch(stretches[-1].start, position + 1 - stretches[-1].start)
        return stretches

    def compute(
        self, job: JobContext, images: Sequence[Any], backbone: Backbone, views: Sequence[str] = (PLAIN,)
    ) -> list[LostImage]:
        """Compute what is not cached, and cache it; return the images that have no sound file."""
        lost: dict[str, LostImage] = {}
        for part in backbone.parts():
            missing = [image for image in images if image.id not in lost and not self._is_cached(image, part, views)]
            ask = carried(partial(self._ask, job, backbone=part, views=views))
            with ThreadPoolExecutor(BATCHES_AHEAD) as pool:
                for _, faults in pool.map(ask, _batches(missing)):
                    lost |= {one.image_id: one for one in faults}
        return list(lost.values())

    def read(
        self, job: JobContext, images: Sequence[Any], backbone: Backbone, views: Sequence[str] = (PLAIN,)
    ) -> np.ndarray:
        """Return the features of images, (N, V, D) float32, V views each; computes those that are not cached any more.

        Raises:
            FileLost: A file that is needed is missing or damaged.
        """
        parts = backbone.parts()
        if len(parts) > 1:
            return combine_rows([self.read(job, images, part, views) for part in parts])
        rows = [self._cache.get_many(self._keys(image, backbone, views)) for image in images]
        absent = [position for position, row in enumerate(rows) if any(array is None for array in row)]
        found: dict[int, np.ndarray] = {}
        for batch in _batches([images[position] for position in absent]):
            computed, lost = self._ask(job, batch, backbone, views)
            if lost:
                raise refusal_of_all(lost, len(lost), batch[0].dataset_id or "")
            for array in computed:
                found[absent[len(found)]] = array
        return np.stack([found[p] if p in found else np.stack(row) for p, row in enumerate(rows)])  # type: ignore[arg-type]

    def lost(self, job: JobContext, images: Sequence[Any]) -> list[LostImage]:
        """Return the images that have no sound file; reads all files, whatever is cached."""
        return [found for image in images if isinstance(found := self._file(job, image), LostImage)]

    def _ask(
        self, job: JobContext, images: Sequence[Any], backbone: Backbone, views: Sequence[str]
    ) -> tuple[np.ndarray, list[LostImage]]:
        """Return the features of the images with sound files, (N, V, D), and the other images; caches the former."""
        sound, files, lost = [], [], []
        for image in images:
            data = self._file(job, image)
            if isinstance(data, LostImage):
                lost.append(data)
            else:
                sound.append(image)
                files.append(data)
        if not files:
            return np.empty((0, len(views), 0), np.float32), lost
        batch = FeatureBatch(backbone.name, backbone.weights_sha256, list(views), files)
        features = self._node.feature_batch(batch, keep_waiting=wait_policy(job), caller=job.caller)
        try:
            for image, rows in zip(sound, features, strict=True):
                for key, row in zip(self._keys(image, backbone, views), rows, strict=True):
                    self._cache.put(key, row)
        except (StorageFull, Unavailable):  # it is a cache: missing features are computed again
            logger.warning("The features of images could not be cached.", exc_info=True)
        return features, lost

    def _file(self, job: JobContext, image: Any) -> bytes | LostImage:
        try:
            return load(job, partial(self._checks.read, image.path, num_bytes=image.num_bytes, sha256=image.sha256))
        except LostFile as error:
            return LostImage(image.id, image.path, IMAGE_CODES[error.fault])
        except FileLost as error:
            return LostImage(image.id, image.path, error.code)

    def _is_cached(self, image: Any, backbone: Backbone, views: Sequence[str]) -> bool:
        return all(all(map(self._cache.has, self._keys(image, part, views))) for part in backbone.parts())

    def _keys(self, image: Any, backbone: Backbone, views: Sequence[str]) -> list[str]:
        return [view_key(image.sha256, backbone.facts, view) for view in views]


def _batches(images: Sequence[Any]) -> Iterator[list[Any]]:
    """Split images into batches of at most `BATCH_IMAGES` and `BATCH_BYTES`; a larger image is a batch of its own."""
    batch: list[Any] = []
    num_bytes = 0
    for image in images:
        if batch and (len(batch) == BATCH_IMAGES or num_bytes + image.num_bytes > BATCH_BYTES):
            yield batch
            batch, num_bytes = [], 0
        batch.append(image)
        num_bytes += image.num_bytes
    if batch:
        yield batch
