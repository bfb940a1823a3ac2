"""The `train` job: computes the features of a dataset's images, fits a head on them and registers the model.

Imports no model, and torch only where the head is fitted (`fitting.py`): the node's engine computes the features. Runs
in the worker process, on the threads of the job.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import Select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Image, TrainEpoch
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.jobs.handler import JobContext
from app.jobs.record import advance, enter
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
    FROM_PROMPTS,
    Backbone,
    Examples,
    FeaturesChunk,
    FeaturesChunkResult,
    FeaturesPlan,
    FittedModel,
    TrainSpec,
)
from app.services.training.zero_shot import TEMPLATE, zero_shot_classes
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks

if TYPE_CHECKING:
    from app.services.training.prompt_fitting import PromptExamples
    from app.training.outcome import HeadEpoch


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
            self._enter(job, "images")
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
        job.transaction("register", lambda session: self._register(session, job.id, spec, backbone, fitted))
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
        """Train the head, evaluate it, and write its file."""
        # These import torch: only where a job trains.
        from app.services.training.assessment import assess_model
        from app.services.training.fitting import fit_examples
        from app.services.training.prompt_fitting import fit_prompt_examples

        self._enter(job, "training")
        with self._db.snapshot() as session:
            dataset = find_dataset(session, spec.dataset_id)
            images = session.execute(_training_columns(dataset.id)).all()
        classes = [entry["name"] for entry in dataset.classes]
        examples = self._examples(job, spec, images, backbone)
        facts: dict[str, Any] = {"classes": classes, "backbone_sha256": backbone.weights_sha256}
        facts["on_epoch"] = partial(self._record_epoch, job)
        if spec.preset == FROM_PROMPTS:
            given = self._prompt_examples(job, examples, images, backbone, classes)
            fitted, ablation = fit_prompt_examples(given, spec, **facts)
        else:
            fitted, ablation = fit_examples(examples, spec, check=job.check_cancelled, **facts), []
        self._enter(job, "evaluation")
        zero_shot = zero_shot_classes(job, self._node, self._source, images, classes)
        assessed = assess_model(fitted, examples, images, classes, clip_zero_shot=zero_shot, seed=spec.seed)
        path = self._folder.model_path(job.id)
        store(job, self._folder, path, fitted.data)
        return FittedModel(
            classes=classes,
            path=path,
            sha256=hashlib.sha256(fitted.data).hexdigest(),
            num_bytes=len(fitted.data),
            metrics=assessed.metrics.model_dump(mode="json"),
            dataset=_origin(dataset, images),
            chosen=asdict(fitted.result.chosen),
            test={**assessed.to_json(), "ablation": [row.model_dump(mode="json") for row in ablation]},
        )

    def _prompt_examples(
        self, job: JobContext, examples: Examples, images: Sequence[Any], backbone: Backbone, classes: Sequence[str]
    ) -> "PromptExamples":
        from app.services.training.prompt_fitting import PromptExamples

        parts = backbone.parts()
        sizes = {part.name: self._source.read(job, images[:1], part).shape[-1] for part in parts}
        texts = self._node.texts([TEMPLATE.format(name) for name in classes], keep_waiting=wait_policy(job))
        is_real = np.array([image.source == "real" for image in images])
        return PromptExamples(examples, sizes, is_real, texts)

    def _examples(self, job: JobContext, spec: TrainSpec, images: Sequence[Any], backbone: Backbone) -> Examples:
        views = spec.views()
        train = [image for image in images if image.split == "train"]
        features = self._source.read(job, images, backbone)[:, 0]
        more = np.empty((len(train), 0, features.shape[1]), np.float32)
        if len(views) > 1:
            self._source.compute(job, train, backbone, views)  # in parallel, and kept if this step is repeated
            more = self._source.read(job, train, backbone, views[1:])
        return Examples(
            features=features,
            more_views=more,
            labels=np.array([image.class_index for image in images]),
            is_train=np.array([image.split == "train" for image in images]),
            ids=[image.sha256 for image in images],
        )

    def _enter(self, job: JobContext, phase: str) -> None:
        job.check_cancelled()
        with self._db.transaction() as session:
            enter(session, job.id, phase)

    def _register(
        self, session: Session, job_id: str, spec: TrainSpec, backbone: Backbone, fitted: FittedModel
    ) -> Json:
        from app.services.training.registration import register_model  # imports what only a finished training needs

        register_model(session, job_id, spec, backbone, fitted)
        return None

    def _record_epoch(self, job: JobContext, metrics: "HeadEpoch") -> None:
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
    enter(session, job_id, "features")
    advance(session, job_id, plan.num_cached(total))
    return total


def _training_columns(dataset_id: str) -> Select[Any]:
    """Select the columns that training needs; the lineages of all images would take hundreds of megabytes."""
    file: tuple[Any, ...] = (Image.id, Image.dataset_id, Image.path, Image.sha256, Image.num_bytes)
    return images_of(dataset_id).with_only_columns(*file, Image.split, Image.class_index, Image.source, Image.seed)


def _origin(dataset: Dataset, images: Sequence[Any]) -> dict[str, Any]:
    """Return what the model was trained on, with the version of its content."""
    return {
        "id": dataset.id,
        "name": dataset.name,
        "num_images": len(images),
        "num_real": sum(image.source == "real" for image in images),
        "version": content_version(dataset, ((image.split, image.class_index, image.sha256) for image in images)),
    }
