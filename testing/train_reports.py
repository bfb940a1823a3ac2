"""Reports of invented trainings, for the tests of the page and of the pictures."""

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from PIL import Image

from app.schemas.evaluations import DifferenceInterval, Interval, MetricsRead
from app.schemas.generations import WarningRead
from app.schemas.train_reports import (
    AblationRow,
    ClassImages,
    EpochPoint,
    PromptLineage,
    ReportLineage,
    ReportMistake,
    SettingRead,
    TrainReportRead,
)
from app.services.evaluation.assess import BaselinePredictions, EvaluatedImages, assess
from app.services.evaluation.records import label_errors_read, mistakes_read
from app.services.evaluation.stored import without_images
from app.services.evaluation.warnings import warnings_about_test
from app.training.label_errors import find_label_errors
from app.training.mistakes import find_mistakes
from app.training.predictions import read_predictions

HASH = "0123456789abcdef" * 4


def thumbnail(seed: int) -> str:
    """A small picture of one colour as base64."""
    buffer = io.BytesIO()
    Image.new("RGB", (96, 72), ((seed * 37) % 256, (seed * 91) % 256, (seed * 53) % 256)).save(buffer, "JPEG")
    return base64.b64encode(buffer.getvalue()).decode()


def url(image_id: str) -> str:
    return f"/images/{image_id}/content"


def report(
    names: Sequence[str],
    *,
    num_real: int = 166,
    num_synthetic: int = 60,
    num_epochs: int = 10,
    prompt: str = "a watercolor painting of a {}",
    thumbnails: bool = True,
    seed: int = 0,
) -> TrainReportRead:
    """A report of a classifier that is right in about two thirds of the real images."""
    rng = np.random.default_rng(seed)
    k, n = len(names), num_real + num_synthetic
    labels = rng.integers(0, k, n)
    is_real = np.arange(n) < num_real
    logits = rng.normal(size=(n, k)) + np.where(is_real, 2.0, 5.0)[:, None] * np.eye(k)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    baselines = BaselinePredictions(
        0, np.where(rng.random(n) < 0.6, labels, 0), np.where(rng.random(n) < 0.5, labels, 0)
    )
    test = assess("test", probabilities, EvaluatedImages(labels, is_real), names, baselines=baselines)
    ids = [f"0198f{index:04}" for index in range(n)]
    headline = is_real if num_real else ~is_real
    rows = np.flatnonzero(headline)
    mistakes = mistakes_read(
        find_mistakes(read_predictions(probabilities[rows], labels[rows])),
        image_ids=[ids[row] for row in rows],
        sources=["real" if is_real[row] else "synthetic" for row in rows],
        class_names=names,
        url=url,
    )
    return TrainReportRead(
        name="fox-or-dog",
        job_id="0198f-job",
        model_id="0198f-model",
        created_at=datetime(2026, 11, 29, 12, 30, tzinfo=UTC),
        settings=[
            SettingRead(name=name, value=value) for name, value in (("head", "sgd"), ("lr", "0.001"), ("seed", "0"))
        ],
        epochs=[
            EpochPoint(
                epoch=epoch,
                train_loss=2 / epoch,
                train_accuracy=1 - 0.6 / epoch,
                held_out_loss=2 / epoch + 0.3,
                held_out_accuracy=0.7 - 0.4 / epoch,
            )
            for epoch in range(1, num_epochs + 1)
        ],
        held_out_split="validation",
        metrics=MetricsRead(train=without_images("train"), validation=without_images("validation"), test=test),
        mistakes=[
            ReportMistake(**one.model_dump(), thumbnail_b64=thumbnail(index) if thumbnails else None)
            for index, one in enumerate(mistakes)
        ],
        label_errors=label_errors_read(
            find_label_errors(probabilities, labels), image_ids=ids, class_names=names, url=url
        ),
        ablation=[
            AblationRow(
                part="soft labels",
                with_part=Interval(value=0.82, low=0.76, high=0.87, n=166),
                without_part=Interval(value=0.78, low=0.71, high=0.84, n=166),
                difference=DifferenceInterval(value=0.04, low=-0.01, high=0.09, n=166),
            )
        ],
        lineage=ReportLineage(
            dataset_id="0198f-dataset",
            dataset_name="pets",
            dataset_version=HASH,
            backbone="resnet18",
            backbone_sha256=HASH,
            preprocessing="resize 146 bicubic, crop 128",
            model_sha256=HASH,
            generator="demo 0.2",
            classes=[
                ClassImages(class_name=name, num_train=40, num_validation=8, num_test=10, num_real=9) for name in names
            ],
            prompts=[
                PromptLineage(class_name=name, prompt=prompt.format(name), num_images=40, seeds=list(range(20)))
                for name in names
            ],
            num_prompts=len(names),
        ),
        warnings=[*warnings_about_test(test), WarningRead(code="example", detail="An example of a warning.")],
    )
