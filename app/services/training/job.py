"""The `train` job: features once, a linear probe on them, a registered model; in the worker process."""

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import Select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, TrainedModel, TrainEpoch
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, FileLost, Invalid, StorageFull, Unavailable
from app.jobs.handler import Json
from app.jobs.record import advance
from app.jobs.run import JobRun
from app.node.client import NodeClient
from app.services.datasets.job import DatasetImages
from app.services.datasets.places import refuse_empty_classes
from app.services.datasets.service import find_dataset
from app.services.datasets.versions import content_version, images_of, num_images_of
from app.services.images.lost_files import IMAGE_CODES, MAX_LOST_NAMED, LostImage, refusal_of_all
from app.services.jobs.kinds import TrainKind
from app.services.jobs.waiting import load, patience, store
from app.storage.features import FeatureCache, feature_key
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks, LostFile
from app.training.evaluation import evaluate
from app.training.linear_probe import Diverged, EpochMetrics, FitResult, OptimizerSettings, fit, save_probe

logger = logging.getLogger(__name__)

FEATURES_CHUNK_SIZE = 64
# Requests at a time: enough that the engine finds a batch waiting after each forward.
FEATURES_THREADS = 16


class TrainJob(TrainKind):
    """Handler of `train` jobs."""

    def __init__(
        self, db: Database, folder: DataFolder, features: FeatureCache, node: NodeClient, images: DatasetImages
    ) -> None:
        """Wire the handler."""
        self._db = db
        self._folder = folder
        self._checks = FileChecks(folder)
        self._features = features
        self._node = node
        self._images = images

    def run(self, job: JobRun) -> dict[str, Json]:
        """Generate the dataset if the request brought one, extract features, fit, register."""
        dataset_id = job.spec["dataset_id"]
        if job.spec["dataset"] is not None:
            made = self._images.make(job, dataset_id)
            if made["num_missing"] and not job.spec.get("allow_incomplete"):
                raise Conflict(
                    f"{made['num_missing']} images could not be generated. Retry the job to try them again.",
                    code=ErrorCode.DATASET_INCOMPLETE,
                )
        backbone: Any = job.step("backbone", lambda: self._backbone(job))
        total: Any = job.transaction("count-images", lambda session: _count_images(session, dataset_id))
        items = [
            {"part": "features", "dataset_id": dataset_id, "start": start, "backbone": backbone}
            for start in range(0, total, FEATURES_CHUNK_SIZE)
        ]
        _refuse_lost(dataset_id, job.chunks(items))
        fitted: Any = job.step("fit", lambda: self._fit(job, backbone))
        job.transaction("register", lambda session: _register(session, job, backbone, fitted))
        return {"model_id": job.id}

    def run_chunk(self, job: JobRun, item: Json) -> Json:
        """Make images, or extract features, as the chunk says."""
        if not isinstance(item, dict):
            raise TypeError("a chunk is a JSON object")
        return self._images.make_chunk(job, item) if item["part"] == "images" else self._features_chunk(job, item)

    def tidy(self, job: JobRun) -> None:
        """Remove unrecorded images of a dataset that this job makes."""
        if job.spec["dataset"] is not None:
            self._images.tidy(job.spec["dataset_id"])

    def _backbone(self, job: JobRun) -> Json:
        loaded = self._node.backbone(keep_waiting=patience(job)).to_json()
        if loaded["weights_sha256"] != job.spec["backbone_sha256"]:
            raise Conflict(
                "Another backbone is loaded than when this job was accepted. Load that one, or submit the job again.",
                code=ErrorCode.BACKBONE_CHANGED,
            )
        return loaded

    def _features_chunk(self, job: JobRun, item: dict[str, Any]) -> Json:
        with self._db.snapshot() as session:
            query = _training_columns(item["dataset_id"]).offset(item["start"]).limit(FEATURES_CHUNK_SIZE)
            images = session.execute(query).all()

        with ThreadPoolExecutor(FEATURES_THREADS) as pool:
            found = pool.map(lambda image: self._lost_or_known(job, image, item["backbone"]), images)
            lost = [one.to_json() for one in found if one is not None]
        job.transaction("progress", lambda session: advance(session, job.id, len(images)))
        return {"num_lost": len(lost), "lost": lost[:MAX_LOST_NAMED]}

    def _lost_or_known(self, job: JobRun, image: Any, backbone: dict[str, Any]) -> LostImage | None:
        """Learn an image's features; return the image if it has no sound file to learn them from."""
        try:
            self._feature(job, image, backbone)
        except FileLost as error:
            return LostImage(image.id, image.path, error.code)
        return None

    def _feature(self, job: JobRun, image: Any, backbone: dict[str, Any]) -> np.ndarray:
        key = feature_key(image.sha256, backbone["weights_sha256"], backbone["preprocessing"])
        known = self._features.get(key)
        if known is not None:
            return known
        try:
            data = load(job, partial(self._checks.read, image.path, num_bytes=image.num_bytes, sha256=image.sha256))
        except LostFile as error:
            lost = LostImage(image.id, image.path, IMAGE_CODES[error.fault])
            raise refusal_of_all([lost], 1, image.dataset_id or "") from None
        features = self._node.features(data, keep_waiting=patience(job))
        try:
            self._features.put(key, features)
        except (StorageFull, Unavailable):  # a cache: what it could not keep is asked again
            logger.warning("The features of an image could not be kept.", exc_info=True)
        return features

    def _fit(self, job: JobRun, backbone: dict[str, Any]) -> Json:
        """Train the head and write its file; what is returned becomes the model's record."""
        spec = job.spec
        with self._db.snapshot() as session:
            dataset = find_dataset(session, spec["dataset_id"])
            images = session.execute(_training_columns(dataset.id)).all()
        features = np.stack([self._feature(job, image, backbone) for image in images])  # (N, D)
        labels = np.array([image.class_index for image in images])  # (N,)
        train = np.array([image.split == "train" for image in images])  # (N,)
        try:
            result = fit(
                features[train],
                labels[train],
                features[~train],
                labels[~train],
                num_classes=len(dataset.classes),
                epochs=spec["epochs"],
                batch_size=spec["batch_size"],
                optimizer=OptimizerSettings(**spec["optimizer"]),
                seed=spec["seed"],
                on_epoch=lambda metrics: self._record_epoch(job, metrics),
            )
        except Diverged as error:
            detail = "The loss is not finite any more. Use a smaller learning rate."
            raise Invalid(detail, code=ErrorCode.DIVERGED) from error
        splits = {"train": train, "test": ~train}
        metrics = {
            split: _evaluation(result, features[rows], labels[rows], dataset)
            for split, rows in splits.items()
            if rows.any()
        }
        return {**self._write(job, result, dataset, backbone), "metrics": metrics, "dataset": _origin(dataset, images)}

    def _record_epoch(self, job: JobRun, metrics: EpochMetrics) -> None:
        job.check_cancelled()
        with self._db.transaction() as session:
            # A repeated fit gives the same epochs again: the row is replaced, the progress counted once.
            if session.get(TrainEpoch, (job.id, metrics.epoch)) is None:
                advance(session, job.id, 1)
            session.merge(TrainEpoch(job_id=job.id, **asdict(metrics)))

    def _write(self, job: JobRun, result: FitResult, dataset: Dataset, backbone: dict[str, Any]) -> dict[str, Any]:
        classes = [entry["name"] for entry in dataset.classes]
        data = save_probe(result.probe, classes=classes, backbone=backbone["weights_sha256"])
        path = self._folder.model_path(job.id)
        store(job, self._folder, path, data)
        return {"classes": classes, "path": path, "sha256": hashlib.sha256(data).hexdigest(), "num_bytes": len(data)}


def _refuse_lost(dataset_id: str, chunks: Sequence[Json]) -> None:
    """Fail once all images were looked at, if some have no sound file: all are counted, and the first ones named.

    What was learnt of the others is kept: after a repair the job's retry has little left to do.

    Raises:
        FileLost: With ids and paths.
    """
    told = [chunk for chunk in chunks if chunk]  # chunks of older releases told nothing
    lost = [LostImage(**one) for chunk in told for one in chunk["lost"]]
    if lost:
        raise refusal_of_all(lost, sum(chunk["num_lost"] for chunk in told), dataset_id)


def _count_images(session: Session, dataset_id: str) -> int:
    """Return how many images there are, unless a class has none to train on (any more)."""
    refuse_empty_classes(session, find_dataset(session, dataset_id))
    return num_images_of(session, dataset_id)


def _evaluation(result: FitResult, features: np.ndarray, labels: np.ndarray, dataset: Dataset) -> dict[str, Any]:
    return asdict(evaluate(result.probe, features, labels, num_classes=len(dataset.classes)))


def _training_columns(dataset_id: str) -> Select[Any]:
    """Select of a dataset's images what training asks for; their lineages would be hundreds of megabytes."""
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


def _register(session: Session, job: JobRun, backbone: dict[str, Any], fitted: dict[str, Any]) -> Json:
    """Add the model's row; its id is the job's, so that a repeat cannot add a second one."""
    settings = ("method", "epochs", "batch_size", "optimizer", "seed")
    model = TrainedModel(
        id=job.id,
        name=job.spec["name"],
        job_id=job.id,
        dataset_id=job.spec["dataset_id"],
        backbone=job.spec["backbone"],
        backbone_sha256=backbone["weights_sha256"],
        lineage={
            "dataset": fitted["dataset"],
            "backbone": backbone,
            "training": {name: job.spec[name] for name in settings},
        },
        metrics=_part(fitted["metrics"], is_table=False),
        metric_tables=_part(fitted["metrics"], is_table=True),
        **{name: fitted[name] for name in ("classes", "path", "sha256", "num_bytes")},
    )
    session.add(model)
    try:
        session.flush()
    except IntegrityError:
        raise Conflict("A model of this name exists. Choose another name.", code=ErrorCode.MODEL_NAME_TAKEN) from None
    return None


def _part(metrics: dict[str, dict[str, Any]], *, is_table: bool) -> dict[str, dict[str, Any]]:
    """Return either the single figures of each split, or those that there are several of."""
    return {
        split: {name: value for name, value in figures.items() if isinstance(value, list | tuple) == is_table}
        for split, figures in metrics.items()
    }
