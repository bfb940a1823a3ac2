"""The training images that are nearest to a classified image, in the feature space of the model's backbone.

The features of training images come from the cache of train jobs; nothing is computed for them here. Imports no HTTP
framework and no engine. `find` is called on the event loop; files, rows and matrices are read on the one thread of the
pool `explanations`.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import Select, func, select

from app.access.caller import Caller
from app.access.visibility import seen
from app.db.models import Dataset, Image
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.node.combined import combine_rows
from app.schemas.judging import NearestImage, NearestRead
from app.services.datasets.records import images_in
from app.services.process.thread_pools import WorkPool
from app.services.training.models import find_model
from app.services.training.payloads import Backbone
from app.storage.features import PLAIN, FeatureCache, view_key

# Training images that an image is compared with, at most: reading their features takes 0.1 ms each, once.
MAX_COMPARED = 20_000
# Bytes of the features of one dataset, at most; further images are left out evenly.
_MAX_BYTES = 64_000_000
# Datasets, or backbones on one, whose features stay in memory.
_NUM_KEPT = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """The cached features of a dataset's training images under one backbone.

    Attributes:
        num_training: Training images of the dataset when they were read, those without features too.
        image_ids: N ids.
        rows: (N, D) float32, each of norm 1.
    """

    num_training: int
    image_ids: Sequence[str]
    rows: np.ndarray


@dataclass(frozen=True, slots=True)
class _Subject:
    """What a model was trained on, as it is now: its dataset with the names of the classes, and its backbone."""

    dataset_id: str
    classes: Sequence[str]
    backbone: Backbone
    num_training: int


class NearestImages:
    """Compares features with those of training images."""

    def __init__(self, db: Database, cache: FeatureCache, pool: WorkPool) -> None:
        """Wire the service; `pool` has one thread."""
        self._db = db
        self._cache = cache
        self._pool = pool
        # Used on the pool's thread alone.
        self._kept: OrderedDict[tuple[str, str], _Features] = OrderedDict()

    async def find(self, model_id: str, features: np.ndarray, num_nearest: int, caller: Caller) -> NearestRead:
        """Return the training images of a model that are most similar to an image, the most similar first.

        Args:
            model_id: The model.
            features: Of the image, by the model's backbone, (D,).
            num_nearest: Images to return at most, >= 1.
            caller: Who asks; he sees the model.

        Raises:
            Conflict: `training_images_gone` or `features_not_cached`.
            QueueFull: Try again.
        """
        call = partial(self._find, model_id, features, num_nearest, caller)
        return await self._pool.run(call, caller=caller.id)

    def _find(self, model_id: str, features: np.ndarray, num_nearest: int, caller: Caller) -> NearestRead:
        subject = self._subject(model_id, caller)
        known = self._known(subject)
        similarity = known.rows @ (features / max(float(np.linalg.norm(features)), 1e-12)).astype(np.float32)
        # Those that were deleted or rejected since the features were read are left out.
        best = [int(row) for row in np.argsort(-similarity, kind="stable")[: 2 * num_nearest + 8]]
        labels = self._labels(subject, [known.image_ids[row] for row in best])
        images = [
            _nearest_image(known.image_ids[row], labels[known.image_ids[row]], float(similarity[row]))
            for row in best
            if known.image_ids[row] in labels
        ]
        return NearestRead(
            images=images[:num_nearest], num_compared=len(known.image_ids), num_training=subject.num_training
        )

    def _subject(self, model_id: str, caller: Caller) -> _Subject:
        with self._db.snapshot() as session:
            model = find_model(session, model_id)
            seen_one = select(Dataset).where(Dataset.id == model.dataset_id, seen(Dataset.key_id, caller))
            dataset = session.scalar(seen_one)
            if dataset is None:
                raise _gone()
            count = _training(dataset.id).with_only_columns(func.count(Image.id))
            num_training = session.scalar(count) or 0
            if num_training == 0:
                raise _gone()
            classes = [entry["name"] for entry in dataset.classes]
            return _Subject(dataset.id, classes, Backbone(model.lineage.get("backbone", {})), num_training)

    def _labels(self, subject: _Subject, image_ids: Sequence[str]) -> dict[str, str]:
        """Return the class names of those images that are training images, by id."""
        query = _training(subject.dataset_id).where(Image.id.in_(image_ids))
        with self._db.snapshot() as session:
            found = session.execute(query.with_only_columns(Image.id, Image.class_index)).all()
        return {image_id: subject.classes[index or 0] for image_id, index in found}

    def _known(self, subject: _Subject) -> _Features:
        """Return the features of a dataset's training images, from memory while as many images are there."""
        key = subject.dataset_id, json.dumps(subject.backbone.facts, sort_keys=True)
        known = self._kept.pop(key, None)
        if known is None or known.num_training != subject.num_training:
            known = self._read(subject)
        self._kept[key] = known
        while len(self._kept) > _NUM_KEPT:
            self._kept.popitem(last=False)
        return known

    def _read(self, subject: _Subject) -> _Features:
        query = _training(subject.dataset_id).with_only_columns(Image.id, Image.sha256).order_by(Image.id)
        with self._db.snapshot() as session:
            images = session.execute(query).all()
        images = images[:: max(1, -(-len(images) // MAX_COMPARED))]
        parts = subject.backbone.parts() if "weights_sha256" in subject.backbone.facts else []
        found: list[tuple[str, np.ndarray]] = []
        stride = 1
        for position, (image_id, sha256) in enumerate(images):
            row = self._row(sha256, parts) if position % stride == 0 else None
            if row is not None:
                stride = max(1, -(-len(images) * row.nbytes // _MAX_BYTES))
                found.append((image_id, row))
        if not found:
            raise _not_cached()
        rows = np.stack([row for _, row in found])
        rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return _Features(subject.num_training, [image_id for image_id, _ in found], rows)

    def _row(self, sha256: str, parts: Sequence[Backbone]) -> np.ndarray | None:
        """Return the features of one image, (D,) float32; None if a part of them is not cached."""
        found = [self._cache.get(view_key(sha256, part.facts, PLAIN)) for part in parts]
        rows = [row for row in found if row is not None]
        if not rows or len(rows) < len(found):
            return None
        return rows[0] if len(rows) == 1 else combine_rows(rows)


def _training(dataset_id: str) -> Select[Any]:
    return images_in(dataset_id).where(Image.split == "train")


def _nearest_image(image_id: str, label: str, similarity: float) -> NearestImage:
    similarity = max(-1.0, min(1.0, similarity))
    distance = float(np.sqrt(2 - 2 * similarity))
    return NearestImage(
        image_id=image_id, url=f"/images/{image_id}", label=label, similarity=similarity, distance=distance
    )


def _gone() -> Conflict:
    detail = (
        "The training images of this model are gone: its dataset was deleted, or has none any more. Send the request "
        "without nearest."
    )
    return Conflict(detail, code=ErrorCode.TRAINING_IMAGES_GONE)


def _not_cached() -> Conflict:
    detail = (
        "The features of the training images are not cached. Evaluate the model on the split train of its dataset, "
        "which computes them, or send the request without nearest."
    )
    return Conflict(detail, code=ErrorCode.FEATURES_NOT_CACHED)
