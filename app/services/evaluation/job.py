"""The `evaluate` job: computes the features of a split's images, classifies them, and stores the evaluation.

Imports no model, and torch only where the head is used. The dataset is not locked: the images, their classes and the
dataset's version are read in one transaction by the last step, which computes what the chunks before have not. Runs in
the worker process, on the threads of the job.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import Dataset, Evaluation, TrainedModel
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import FileLost, Invalid
from app.jobs.handler import JobContext
from app.jobs.record import advance, set_total
from app.jobs.signals import Json
from app.node.client import NodeClient
from app.schemas.generations import WarningRead
from app.services.datasets.versions import read_version
from app.services.evaluation.assess import BaselinePredictions
from app.services.evaluation.evaluate import evaluate_images
from app.services.evaluation.payloads import EvaluateSpec
from app.services.evaluation.rows import EvaluatedDataset, evaluation_row
from app.services.evaluation.subject import (
    EvaluatedImage,
    majority_of_training,
    match_classes,
    refuse_other_backbone,
    require_images,
    split_columns,
)
from app.services.images.lost_files import MAX_LOST_NAMED
from app.services.jobs.kinds import EvaluateKind, dataset_gone, model_gone
from app.services.jobs.wait_policy import load, wait_policy
from app.services.store.model_files import read_model_file
from app.services.training.features import FeatureSource
from app.services.training.payloads import (
    Backbone,
    FeaturesChunk,
    FeaturesChunkResult,
    FeaturesPlan,
    refuse_lost_chunks,
)
from app.services.training.zero_shot import zero_shot_classes
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks
from app.training.predictions import Probabilities


class EvaluateJob(EvaluateKind):
    """Handler of `evaluate` jobs."""

    def __init__(self, db: Database, folder: DataFolder, features: FeatureCache, node: NodeClient) -> None:
        """Use these services."""
        self._db = db
        self._checks = FileChecks(folder)
        self._source = FeatureSource(self._checks, features, node)
        self._node = node

    def run(self, job: JobContext) -> dict[str, Json]:
        """Compute features, classify, store."""
        spec = EvaluateSpec.from_json(job.spec)
        plan = FeaturesPlan.from_json(job.step("backbone", lambda: self._plan(job, spec).to_json()))
        total: int = job.transaction("count-images", lambda session: _count_images(session, job.id, spec, plan))
        ended = job.chunks([chunk.to_json() for chunk in plan.chunks(spec.dataset_id, total)])
        with self._if_there(spec):
            refuse_lost_chunks(spec.dataset_id, [FeaturesChunkResult.from_json(result) for result in ended])
        return {"evaluation_id": job.step("evaluate", lambda: self._evaluate(job, spec, plan.backbone))}

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Compute the features of a chunk's images."""
        chunk, spec = FeaturesChunk.from_json(item), EvaluateSpec.from_json(job.spec)
        with self._db.snapshot() as session:
            query = split_columns(spec.dataset_id, spec.split).offset(chunk.start).limit(chunk.count)
            images = session.execute(query).all()
        lost = self._source.compute(job, images, chunk.backbone)
        job.transaction("progress", lambda session: advance(session, job.id, len(images)))
        return FeaturesChunkResult(len(lost), lost[:MAX_LOST_NAMED]).to_json()

    def cleanup(self, job: JobContext) -> None:
        """Do nothing: features in the cache are complete, and the row is written at once."""

    def _plan(self, job: JobContext, spec: EvaluateSpec) -> FeaturesPlan:
        """Find the model's backbone and the images whose features are not cached."""
        with self._db.snapshot() as session:
            model, _ = _subject(session, spec)
            images = session.execute(split_columns(spec.dataset_id, spec.split)).all()
        backbone = self._backbone(job, model)
        return FeaturesPlan(backbone, self._source.missing(images, backbone))

    def _backbone(self, job: JobContext, model: TrainedModel) -> Backbone:
        try:
            facts = self._node.backbone(model.backbone, keep_waiting=wait_policy(job)).to_json()
        except Invalid as error:
            if error.code == ErrorCode.BACKBONE_NOT_FOUND:
                refuse_other_backbone(model, None)
            raise
        refuse_other_backbone(model, facts)
        return Backbone.from_json(facts)

    def _evaluate(self, job: JobContext, spec: EvaluateSpec, backbone: Backbone) -> str:
        """Classify the images, store the evaluation and return its id; a repetition returns the stored one."""
        with self._db.snapshot() as session:
            if (stored := _stored(session, job.id)) is not None:
                return stored
            model, dataset = _subject(session, spec)
            labels = match_classes(dataset, model.classes)
            require_images(session, dataset.id, spec.split)
            rows = session.execute(split_columns(dataset.id, spec.split)).all()
            majority = majority_of_training(model.metric_tables)
            facts = EvaluatedDataset(
                id=dataset.id,
                name=dataset.name,
                version=read_version(session, dataset),
                num_images=len(rows),
                num_real=sum(row.source == "real" for row in rows),
            )
        probabilities = self._classify(job, spec, model, rows, backbone)
        images = [EvaluatedImage(row.id, row.source, labels[row.class_index], row.seed) for row in rows]
        zero_shot = zero_shot_classes(job, self._node, self._source, rows, model.classes)
        metrics, details, predictions = evaluate_images(
            probabilities,
            images,
            split=spec.split,
            classes=model.classes,
            baselines=BaselinePredictions(majority=majority, clip_zero_shot=zero_shot),
        )
        details = replace(details, warnings=[*_warnings(model, spec, facts), *details.warnings])
        job.check_cancelled()
        with self._db.transaction() as session:
            if (stored := _stored(session, job.id)) is not None:
                return stored
            if session.get(TrainedModel, model.id, with_for_update=True) is None:
                raise model_gone()
            row = evaluation_row(
                session,
                model_id=model.id,
                job_id=job.id,
                dataset=facts,
                split=spec.split,
                metrics=metrics,
                details=details,
                predictions=predictions,
            )
            return row.id

    def _classify(
        self, job: JobContext, spec: EvaluateSpec, model: TrainedModel, rows: Sequence[Any], backbone: Backbone
    ) -> Probabilities:
        """Return the probabilities of each image and class, (N, K)."""
        from app.training.probe import load_probe, predict  # imports torch: only where a job evaluates

        with self._if_there(spec):
            probe = load_probe(load(job, lambda: read_model_file(self._checks, model)))
            return predict(probe, self._source.read(job, rows, backbone)[:, 0])

    @contextmanager
    def _if_there(self, spec: EvaluateSpec) -> Iterator[None]:
        """Give a lost file its reason: the files of a dataset or a model that was deleted are gone, too.

        Raises:
            Conflict: `dataset_gone` or `model_gone`, in place of FileLost.
        """
        try:
            yield
        except FileLost:
            with self._db.snapshot() as session:
                _subject(session, spec)
            raise


def _subject(session: Session, spec: EvaluateSpec) -> tuple[TrainedModel, Dataset]:
    """Return the rows of the model and of the dataset.

    Raises:
        Conflict: One of them was deleted.
    """
    model, dataset = session.get(TrainedModel, spec.model_id), session.get(Dataset, spec.dataset_id)
    if model is None:
        raise model_gone()
    if dataset is None:
        raise dataset_gone()
    return model, dataset


def _stored(session: Session, job_id: str) -> str | None:
    return session.scalar(select(Evaluation.id).where(Evaluation.job_id == job_id))


def _count_images(session: Session, job_id: str, spec: EvaluateSpec, plan: FeaturesPlan) -> int:
    """Return how many images the split has, and count those that no chunk reads; refuse what cannot be evaluated."""
    model, dataset = _subject(session, spec)
    match_classes(dataset, model.classes)
    total = require_images(session, dataset.id, spec.split)
    set_total(session, job_id, total)
    advance(session, job_id, max(plan.num_cached(total), 0))
    return total


def _warnings(model: TrainedModel, spec: EvaluateSpec, facts: EvaluatedDataset) -> list[WarningRead]:
    """Return a warning if the model has seen these images."""
    trained_on = model.lineage.get("dataset") or {}
    if spec.split == "test" or facts.id != trained_on.get("id", model.dataset_id):
        return []
    detail = (
        f"These are {spec.split} images of the dataset that the model was trained on, so the figures flatter. Evaluate "
        "it on images that it was not trained on."
    )
    return [WarningRead(code="evaluated_on_training_images", detail=detail)]
