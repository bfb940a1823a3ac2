"""The `train` job: computes the features of a dataset's images, fits a head on them and registers the model.

Imports no model, and torch only where the head is fitted (`fitting.py`): the node's engine computes the features. Runs
in the worker process, on the threads of the job.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, TrainedModel, TrainEpoch
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.jobs.handler import JobContext
from app.jobs.record import advance
from app.jobs.signals import Json
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages
from app.services.datasets.payloads import ImagesChunk
from app.services.datasets.rows import find_dataset
from app.services.datasets.slots import refuse_empty_classes
from app.services.datasets.versions import content_version, images_of, num_images_of
from app.services.images.lost_files import MAX_LOST_NAMED, refusal_of_all
from app.services.jobs.kinds import TrainKind
from app.services.jobs.waiting import store, wait_policy
from app.services.training.features import FeatureSource
from app.services.training.payloads import (
    Backbone,
    Examples,
    FeaturesChunk,
    FeaturesChunkResult,
    FeaturesPlan,
    FittedModel,
    TrainSpec,
)
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

if TYPE_CHECKING:
    from app.training.linear_probe import EpochMetrics


class TrainJob(TrainKind):
    """Handler of `train` jobs."""

    def __init__(
        self, db: Database, folder: DataFolder, features: FeatureCache, node: NodeClient, images: DatasetImages
    ) -> None:
        """Use these services; `images` makes the dataset of a job whose request brought one."""
        self._db = db
        self._folder = folder
        self._source = FeatureSource(FileChecks(folder), features, node)
        self._node = node
        self._images = images

    def run(self, job: JobContext) -> dict[str, Json]:
        """Make the dataset if the request brought one, compute features, fit the head, register the model."""
        spec = TrainSpec.from_json(job.spec)
        if spec.makes_dataset:
            made = self._images.make(job)
            if made.num_missing and not spec.allow_incomplete:
                raise Conflict(
                    f"{made.num_missing} images could not be generated. Retry the job to try them again.",
                    code=ErrorCode.DATASET_INCOMPLETE,
                )
        plan = FeaturesPlan.from_json(job.step("backbone", lambda: self._plan(job, spec).to_json()))
        backbone = plan.backbone
        total: int = job.transaction("count-images", lambda session: _count_images(session, job.id, spec, plan))
        items = [chunk.to_json() for chunk in plan.chunks(spec.dataset_id, total)]
        _refuse_lost(spec.dataset_id, [FeaturesChunkResult.from_json(result) for result in job.chunks(items)])
        fitted = FittedModel.from_json(job.step("fit", lambda: self._fit(job, spec, backbone).to_json()))
        job.transaction("register", lambda session: _register(session, job.id, spec, backbone, fitted))
        return {"model_id": job.id}

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Make images, or compute features, as the item's `part` says."""
        if item["part"] == "images":
            return self._images.make_chunk(job, ImagesChunk.from_json(item)).to_json()
        return self._features_chunk(job, FeaturesChunk.from_json(item)).to_json()

    def cleanup(self, job: JobContext) -> None:
        """Set aside the unrecorded images of a dataset that this job makes."""
        spec = TrainSpec.from_json(job.spec)
        if spec.makes_dataset:
            self._images.cleanup(spec.dataset_id)

    def _plan(self, job: JobContext, spec: TrainSpec) -> FeaturesPlan:
        """Find the backbone and the images whose features are not cached."""
        backbone = self._backbone(job, spec)
        with self._db.snapshot() as session:
            images = session.execute(_training_columns(spec.dataset_id)).all()
        return FeaturesPlan(backbone, self._source.missing(images, backbone))

    def _backbone(self, job: JobContext, spec: TrainSpec) -> Backbone:
        found = Backbone.from_json(self._node.backbone(spec.backbone, keep_waiting=wait_policy(job)).to_json())
        if found.weights_sha256 != spec.backbone_sha256:
            raise Conflict(
                f"The backbone {spec.backbone} has other weights than when this job was accepted. Load those, or "
                "submit the job again.",
                code=ErrorCode.BACKBONE_CHANGED,
            )
        return found

    def _features_chunk(self, job: JobContext, chunk: FeaturesChunk) -> FeaturesChunkResult:
        with self._db.snapshot() as session:
            query = _training_columns(chunk.dataset_id).offset(chunk.start).limit(chunk.count)
            images = session.execute(query).all()
        lost = self._source.compute(job, images, chunk.backbone)
        job.transaction("progress", lambda session: advance(session, job.id, len(images)))
        return FeaturesChunkResult(len(lost), lost[:MAX_LOST_NAMED])

    def _fit(self, job: JobContext, spec: TrainSpec, backbone: Backbone) -> FittedModel:
        """Train the head and write its file."""
        from app.services.training.fitting import fit_head  # imports torch: only where a job trains

        with self._db.snapshot() as session:
            dataset = find_dataset(session, spec.dataset_id)
            images = session.execute(_training_columns(dataset.id)).all()
        classes = [entry["name"] for entry in dataset.classes]
        data, metrics = fit_head(
            Examples(
                features=self._source.read(job, images, backbone)[:, 0],
                labels=np.array([image.class_index for image in images]),
                is_train=np.array([image.split == "train" for image in images]),
            ),
            spec,
            classes=classes,
            backbone_sha256=backbone.weights_sha256,
            on_epoch=lambda metrics: self._record_epoch(job, metrics),
        )
        path = self._folder.model_path(job.id)
        store(job, self._folder, path, data)
        sha256 = hashlib.sha256(data).hexdigest()
        return FittedModel(classes, path, sha256, len(data), metrics, _origin(dataset, images))

    def _record_epoch(self, job: JobContext, metrics: "EpochMetrics") -> None:
        job.check_cancelled()
        with self._db.transaction() as session:
            # A repeated fit gives the same epochs again: the row is replaced, the progress is counted once.
            if session.get(TrainEpoch, (job.id, metrics.epoch)) is None:
                advance(session, job.id, 1)
            session.merge(TrainEpoch(job_id=job.id, **asdict(metrics)))


def _refuse_lost(dataset_id: str, chunks: Sequence[FeaturesChunkResult]) -> None:
    """Fail after all images were read, if some have no sound file: all are counted, and the first ones named.

    The features of the others are cached: after a repair the job's retry computes the rest alone.

    Raises:
        FileLost: With ids and paths.
    """
    lost = [one for chunk in chunks for one in chunk.lost]
    if lost:
        raise refusal_of_all(lost, sum(chunk.num_lost for chunk in chunks), dataset_id)


def _count_images(session: Session, job_id: str, spec: TrainSpec, plan: FeaturesPlan) -> int:
    """Return how many images the dataset has, and count those that no chunk reads; refuse an empty class."""
    refuse_empty_classes(session, find_dataset(session, spec.dataset_id))
    total = num_images_of(session, spec.dataset_id)
    advance(session, job_id, plan.num_cached(total))
    return total


def _training_columns(dataset_id: str) -> Select[Any]:
    """Select the columns that training needs; the lineages of all images would take hundreds of megabytes."""
    file: tuple[Any, ...] = (Image.id, Image.dataset_id, Image.path, Image.sha256, Image.num_bytes)
    return images_of(dataset_id).with_only_columns(*file, Image.split, Image.class_index, Image.source)


def _origin(dataset: Dataset, images: Sequence[Any]) -> dict[str, Any]:
    """Return what the model was trained on, with the version of its content."""
    return {
        "id": dataset.id,
        "name": dataset.name,
        "num_images": len(images),
        "num_real": sum(image.source == "real" for image in images),
        "version": content_version(dataset, ((image.split, image.class_index, image.sha256) for image in images)),
    }


def _register(session: Session, job_id: str, spec: TrainSpec, backbone: Backbone, fitted: FittedModel) -> Json:
    """Add the model's row; its id is the job's, so that a repetition cannot add a second one."""
    model = TrainedModel(
        id=job_id,
        name=spec.name,
        job_id=job_id,
        dataset_id=spec.dataset_id,
        backbone=spec.backbone,
        backbone_sha256=backbone.weights_sha256,
        lineage={"dataset": fitted.dataset, "backbone": backbone.to_json(), "training": spec.settings()},
        metrics=_part(fitted.metrics, is_table=False),
        metric_tables=_part(fitted.metrics, is_table=True),
        classes=fitted.classes,
        path=fitted.path,
        sha256=fitted.sha256,
        num_bytes=fitted.num_bytes,
    )
    session.add(model)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict("A model of this name exists. Choose another name.", code=ErrorCode.MODEL_NAME_TAKEN) from None
    return None


def _part(metrics: dict[str, dict[str, Any]], *, is_table: bool) -> dict[str, dict[str, Any]]:
    """Return the single figures of each split, or its tables."""
    return {
        split: {name: value for name, value in figures.items() if isinstance(value, list | tuple) == is_table}
        for split, figures in metrics.items()
    }
