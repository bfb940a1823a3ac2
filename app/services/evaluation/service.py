"""The service for evaluations of models: submit, list, read, compare. The job in `job.py` evaluates.

Imports no HTTP framework and no training code. Methods run on a worker thread of the API process, except `compare`,
which is called on the event loop and computes in the reports' pool.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from app.access.caller import Caller
from app.access.visibility import seen
from app.db.models import Dataset, Evaluation, TrainedModel
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Invalid, NotFound
from app.jobs.queue import JobQueue
from app.schemas.evaluations import (
    EvaluationCreate,
    EvaluationPage,
    EvaluationRead,
    EvaluationSummary,
    SourcedMetricsRead,
    SourcedMetricsSummary,
)
from app.schemas.jobs import EvaluateJob
from app.schemas.model_comparisons import MAX_COMPARED, ModelComparisonRead
from app.services.datasets.slots import refuse_repair, refuse_unfinished
from app.services.evaluation.compare import ModelPredictions, compare_models
from app.services.evaluation.details import EvaluationDetails
from app.services.evaluation.payloads import EvaluateSpec
from app.services.evaluation.predictions import StoredPredictions
from app.services.evaluation.subject import match_classes, refuse_other_backbone, require_images
from app.services.inference.service import Inference
from app.services.jobs.idempotency import ANEW, Submission, accept
from app.services.jobs.service import job_read_as
from app.services.pagination import count_matches, fetch_page
from app.services.process.thread_pools import Pools
from app.services.training.models import find_model

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
# Newest evaluations of a model among which `compare` looks for common ones.
_MAX_CONSIDERED = 1_000


class EvaluationService:
    """Submits, lists, reads and compares evaluations."""

    def __init__(self, db: Database, inference: Inference, jobs: JobQueue, pools: Pools) -> None:
        """Wire the service."""
        self._db = db
        self._inference = inference
        self._jobs = jobs
        self._pool = pools.reports

    def create(self, model_id: str, request: EvaluationCreate, submission: Submission = ANEW) -> EvaluateJob:
        """Accept the evaluation of a model on a split of a dataset.

        Raises:
            NotFound: There is no model with this id.
            Invalid: There is no such dataset, it has classes that the model does not know, or no images in the split.
            Conflict: The dataset is being made or repaired, or the node does not have the model's backbone.
            ModelNotReady: The backbone is loading, or its files cannot be used.
        """
        with self._db.snapshot() as session:
            model = find_model(session, model_id)
        # Outside of the transaction, because it may hash a file.
        facts = self._inference.require_backbone(model.backbone, model.backbone_sha256)
        refuse_other_backbone(model, facts.to_json())

        def work(session: Session) -> EvaluateJob:
            classes = find_model(session, model_id).classes
            dataset = session.get(Dataset, request.dataset_id)
            if dataset is None or not submission.caller.sees(dataset.key_id):
                raise Invalid.field("#/dataset_id", "There is no dataset with this id.", ErrorCode.DATASET_NOT_FOUND)
            refuse_repair(session, dataset.id)
            if dataset.status != "empty":  # which has no images, and the error says so
                refuse_unfinished(session, dataset, allow_incomplete=True)
            match_classes(dataset, classes)
            num = require_images(session, dataset.id, request.split)
            spec = EvaluateSpec(model_id, dataset.id, request.split)
            job = self._jobs.submit(
                session,
                kind="evaluate",
                spec=spec.to_json(),
                total=num,
                unit="images",
                priority=submission.priority,
                caller=submission.caller,
            )
            return job_read_as(EvaluateJob, job)

        return accept(self._db, submission, work, location=lambda job: f"/jobs/{job.id}")

    def page(self, model_id: str, limit: int, cursor: str | None) -> EvaluationPage:
        """Return a page of a model's evaluations, newest first.

        Raises:
            NotFound: There is no model with this id.
        """
        with self._db.snapshot() as session:
            find_model(session, model_id)
            query = select(Evaluation).where(Evaluation.model_id == model_id)
            rows, next_cursor = fetch_page(session, query, Evaluation.id, limit, cursor)
            warnings = _warnings(session, [row.id for row in rows])
            items = [
                EvaluationSummary(
                    **_fields(row), metrics=SourcedMetricsSummary.model_validate(row.summary), warnings=warnings[row.id]
                )
                for row in rows
            ]
            return EvaluationPage(items=items, next_cursor=next_cursor, total=count_matches(session, query))

    def read(self, model_id: str, evaluation_id: str) -> EvaluationRead:
        """Return one evaluation of a model.

        Raises:
            NotFound: The model has none with this id.
        """
        with self._db.snapshot() as session:
            options = [undefer(Evaluation.tables), undefer(Evaluation.details)]
            row = session.get(Evaluation, evaluation_id, options=options)
            if row is None or row.model_id != model_id:
                raise NotFound("The model has no evaluation with this id.")
            details = EvaluationDetails.from_json(row.details)
            return EvaluationRead(
                **_fields(row),
                metrics=SourcedMetricsRead.model_validate(row.tables),
                warnings=details.warnings,
                mistakes=details.mistakes,
            )

    async def compare(self, ids: str, caller: Caller) -> ModelComparisonRead:
        """Compare models that the caller sees on the images that all of them were evaluated on.

        Of each model, the newest evaluation counts on the dataset and split on which all were evaluated most recently;
        where there is no such split, the newest one of each.

        Args:
            ids: Two to ten ids of models, separated by commas.
            caller: Who asks.

        Raises:
            Invalid: The ids are not two to ten different ones, or there is no model with one of them.
            QueueFull: Too many reports and comparisons wait.
        """
        return await self._pool.run(lambda: compare_models(self._predictions(_split_ids(ids), caller)))

    def _predictions(self, ids: Sequence[str], caller: Caller) -> list[ModelPredictions]:
        named = select(TrainedModel.id, TrainedModel.name).where(TrainedModel.id.in_(ids))
        with self._db.snapshot() as session:
            names = {row.id: row.name for row in session.execute(named.where(seen(TrainedModel.key_id, caller)))}
            if any(model_id not in names for model_id in ids):
                detail = "There is no model with one of these ids."
                raise Invalid.field("#query/ids", detail, ErrorCode.MODEL_NOT_FOUND)
            chosen = _choose({model_id: _considered(session, model_id) for model_id in ids})
            query = select(Evaluation.id, Evaluation.predictions).where(Evaluation.id.in_(chosen.values()))
            stored = {row.id: row.predictions for row in session.execute(query)}
        return [
            ModelPredictions(
                model_id,
                names[model_id],
                StoredPredictions.from_json(stored[chosen[model_id]]).by_image() if model_id in chosen else [],
            )
            for model_id in ids
        ]


def _split_ids(ids: str) -> list[str]:
    """Return the ids of a query.

    Raises:
        Invalid: They are not two to ten different ids.
    """
    listed = [one.strip() for one in ids.split(",")]
    is_sound = all(map(_ID.fullmatch, listed)) and len(set(listed)) == len(listed)
    if not is_sound or not 2 <= len(listed) <= MAX_COMPARED:
        detail = f"Give 2 to {MAX_COMPARED} different ids of models, separated by commas."
        raise Invalid.field("#query/ids", detail, ErrorCode.BAD_MODEL_IDS)
    return listed


def _considered(session: Session, model_id: str) -> dict[tuple[str, str], str]:
    """Return the id of a model's newest evaluation of each dataset and split, newest first."""
    query = select(Evaluation.id, Evaluation.dataset_id, Evaluation.split).where(Evaluation.model_id == model_id)
    newest: dict[tuple[str, str], str] = {}
    for row in session.execute(query.order_by(Evaluation.id.desc()).limit(_MAX_CONSIDERED)):
        newest.setdefault((row.dataset_id, row.split), row.id)
    return newest


def _choose(considered: Mapping[str, Mapping[tuple[str, str], str]]) -> dict[str, str]:
    """Return the evaluation of each model that is compared; a model without any is left out."""
    by_split: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for model_id, newest in considered.items():
        for split, evaluation_id in newest.items():
            by_split[split][model_id] = evaluation_id
    # Ids grow with time: the split whose last evaluation is the newest one.
    common = [found for found in by_split.values() if len(found) == len(considered)]
    if common:
        return max(common, key=lambda found: max(found.values()))
    return {model_id: next(iter(newest.values())) for model_id, newest in considered.items() if newest}


def _warnings(session: Session, ids: Sequence[str]) -> dict[str, list[Any]]:
    """Return the warnings of evaluations without reading what else `details` has."""
    query = select(Evaluation.id, Evaluation.details["warnings"].as_json().label("warnings"))
    return {row.id: row.warnings or [] for row in session.execute(query.where(Evaluation.id.in_(ids)))}


def _fields(row: Evaluation) -> dict[str, Any]:
    columns = ("id", "model_id", "job_id", "dataset_id", "split", "created_at")
    dataset = {"dataset_name": row.dataset["name"], "dataset_version": row.dataset["version"]}
    return {**{name: getattr(row, name) for name in columns}, **dataset}
