"""Trained models and train jobs without training: rows and files as a train job leaves them."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.db.base import new_id
from app.db.models import Job, TrainedModel, TrainEpoch
from app.db.session import Database
from app.schemas.evaluations import MetricsRead
from app.services.evaluation.assess import BaselinePredictions
from app.services.evaluation.evaluate import EvaluatedRow, evaluate_images
from app.services.evaluation.rows import EvaluatedDataset, evaluation_row
from app.services.evaluation.stored import metrics_columns, without_images
from app.services.evaluation.subject import EvaluatedImage
from app.storage.layout import DataFolder
from app.training.probe import LinearProbe, save_probe
from testing.fake_models import NUM_FEATURES, PREPROCESSING

BACKBONE_SHA256 = "f" * 64
OLD_TABLES = {
    "train": {"per_class": [{"support": 4}, {"support": 6}], "confusion_matrix": [[4, 0], [0, 6]]},
    "test": {"per_class": [{"support": 4}, {"support": 4}], "confusion_matrix": [[3, 1], [2, 2]]},
}
OLD_METRICS = {"train": {"accuracy": 1.0, "macro_f1": 1.0}, "test": {"accuracy": 0.625, "macro_f1": 0.6}}


def colour_probe(num_classes: int = 2) -> LinearProbe:
    """A head on `FakeBackbone`'s mean colours: class 0 for red pictures, 1 for blue ones, never another."""
    weight, bias = np.zeros((num_classes, NUM_FEATURES), np.float32), np.full(num_classes, -50, np.float32)
    channel = np.arange(NUM_FEATURES) % 3
    weight[0, channel == 0] = weight[1, channel == 2] = 0.1
    bias[:2] = 0
    return LinearProbe(weight, bias)


def add_model(
    db: Database,
    folder: DataFolder,
    classes: Sequence[str],
    *,
    dataset_id: str = "",
    name: str = "",
    dataset: dict[str, Any] | None = None,
    metrics: MetricsRead | None = None,
    probe: LinearProbe | None = None,
    **columns: Any,
) -> str:
    """Add a model with its succeeded train job; return their id.

    The head is `colour_probe` unless one is given; without metrics the row is as before 0.3.
    """
    model_id = new_id()
    data = save_probe(probe or colour_probe(len(classes)), classes=classes, backbone=BACKBONE_SHA256)
    path = folder.model_path(model_id)
    folder.write(path, data)
    summary, tables = (OLD_METRICS, OLD_TABLES) if metrics is None else metrics_columns(metrics)
    fields: dict[str, Any] = {
        "backbone": "resnet18",
        "backbone_sha256": BACKBONE_SHA256,
        "lineage": {
            "dataset": {"id": dataset_id, "name": "made-of", "num_images": 8, "num_real": 8, **(dataset or {})},
            "backbone": {"name": "resnet18", "preprocessing": PREPROCESSING.to_json()},
            "training": {"method": "linear_probe", "epochs": 2, "optimizer": {"name": "sgd", "lr": 0.1}, "seed": 0},
        },
        "metrics": summary,
        "metric_tables": tables,
        **columns,
    }
    with db.transaction() as session:
        add_job(session, model_id, dataset_id=dataset_id, result={"model_id": model_id})
        session.add(
            TrainedModel(
                id=model_id,
                name=name or f"model-{model_id[-12:]}",
                job_id=model_id,
                dataset_id=dataset_id,
                classes=list(classes),
                path=path,
                sha256=hashlib.sha256(data).hexdigest(),
                num_bytes=len(data),
                **fields,
            )
        )
    return model_id


def add_job(session: Any, job_id: str, *, status: str = "succeeded", dataset_id: str = "", **columns: Any) -> None:
    """Add a train job."""
    spec = {"dataset_id": dataset_id, "dataset": None, "backbone": "resnet18", "name": "m", "allow_incomplete": False}
    session.add(Job(id=job_id, kind="train", status=status, spec=spec, progress_unit="steps", **columns))


def add_epochs(db: Database, job_id: str, num: int, *, is_validated: bool) -> None:
    """Add epochs of a loss that falls."""
    with db.transaction() as session:
        for epoch in range(1, num + 1):
            held_out = {"validation_loss": 2 / epoch, "validation_accuracy": 0.5} if is_validated else {}
            session.add(
                TrainEpoch(
                    job_id=job_id, epoch=epoch, train_loss=1 / epoch, train_accuracy=0.5, test_loss=3 / epoch,
                    test_accuracy=0.25, lr=0.1, elapsed_ms=1.0, **held_out,
                )
            )  # fmt: skip


def evaluated(
    images: Sequence[EvaluatedRow], predicted: Sequence[int], classes: Sequence[str]
) -> tuple[MetricsRead, tuple[Any, Any, Any]]:
    """Metrics with this test split and the same train split, and what `evaluate_images` returned for it."""
    table = np.full((len(images), len(classes)), 0.1 / max(len(classes) - 1, 1))
    table[np.arange(len(images)), list(predicted)] = 0.9
    found = evaluate_images(
        table, images, split="test", classes=classes, baselines=BaselinePredictions(majority=0) if images else None
    )
    metrics = MetricsRead(train=found[0], validation=without_images("validation"), test=found[0])
    return metrics, found


def add_evaluation(
    db: Database, model_id: str, images: Sequence[EvaluatedImage], predicted: Sequence[int], classes: Sequence[str],
    *, dataset_id: str, job_id: str | None = None,
) -> str:  # fmt: skip
    """Add an evaluation of a model on the test split of a dataset; return its id."""
    _, (metrics, details, predictions) = evaluated(images, predicted, classes)
    num_real = sum(image.source == "real" for image in images)
    with db.transaction() as session:
        row = evaluation_row(
            session,
            model_id=model_id,
            job_id=job_id or new_id(),
            dataset=EvaluatedDataset(dataset_id, "made-of", "0" * 64, len(images), num_real),
            split="test",
            metrics=metrics,
            details=details,
            predictions=predictions,
        )
        return row.id
