"""The rows that a finished training adds: the model, and the evaluation of its test images.

Imported by `job.py` when a training has ended. Runs in the worker process, inside the transaction of its caller.
"""

from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.models import Job, TrainedModel
from app.error_codes import ErrorCode
from app.errors import Conflict
from app.schemas.evaluations import MetricsRead, SourcedMetricsRead
from app.services.evaluation.details import EvaluationDetails
from app.services.evaluation.predictions import StoredPredictions
from app.services.evaluation.rows import EvaluatedDataset, evaluation_row
from app.services.evaluation.stored import metrics_columns
from app.services.training.payloads import Backbone, FittedModel, TrainSpec


def register_model(session: Session, job_id: str, spec: TrainSpec, backbone: Backbone, fitted: FittedModel) -> None:
    """Add the row of a trained model and that of its evaluation.

    The model's id is the job's, so that a repetition cannot add a second one.

    Raises:
        Conflict: A model of this name exists.
    """
    summary, tables = _metric_columns(fitted)
    model = TrainedModel(
        id=job_id,
        key_id=session.get_one(Job, job_id).key_id,
        name=spec.name,
        job_id=job_id,
        dataset_id=spec.dataset_id,
        backbone=backbone.name,
        backbone_sha256=backbone.weights_sha256,
        lineage={
            "dataset": fitted.dataset,
            "backbone": backbone.to_json(),
            "training": {**spec.settings(), "chosen": fitted.chosen}
            | ({"probe": fitted.probe} if fitted.probe else {}),
        },
        metrics=summary,
        metric_tables=tables,
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
    if fitted.test is not None:
        _add_evaluation(session, job_id, fitted, fitted.test)


def _add_evaluation(session: Session, job_id: str, fitted: FittedModel, test: dict[str, Any]) -> None:
    """Add the evaluation of the dataset's own test split."""
    origin, predictions = fitted.dataset, StoredPredictions.from_json(test["predictions"])
    evaluation_row(
        session,
        model_id=job_id,
        job_id=job_id,
        dataset=EvaluatedDataset(
            id=origin["id"],
            name=origin["name"],
            version=origin["version"],
            num_images=len(predictions.image_ids),
            num_real=sum(predictions.is_real),
        ),
        split="test",
        metrics=SourcedMetricsRead.model_validate(test["metrics"]),
        details=EvaluationDetails.from_json({**test["details"], "ablation": test.get("ablation", [])}),
        predictions=predictions,
    )


def _metric_columns(fitted: FittedModel) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two columns of metrics; a job that a release before 0.3 fitted has its form."""
    if fitted.test is None:
        return _part(fitted.metrics, is_table=False), _part(fitted.metrics, is_table=True)
    return metrics_columns(MetricsRead.model_validate(fitted.metrics))


def _part(metrics: dict[str, dict[str, Any]], *, is_table: bool) -> dict[str, dict[str, Any]]:
    """Return the single figures of each split, or its tables."""
    return {
        split: {name: value for name, value in figures.items() if isinstance(value, list | tuple) == is_table}
        for split, figures in metrics.items()
    }
