"""The report of a train job from its records.

Imports no HTTP framework and no torch; opens no session. Pure functions that run on a pool thread.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.db.models import Job, TrainedModel, TrainEpoch
from app.schemas.evaluations import MetricsRead, SplitMetricsRead
from app.schemas.generations import WarningRead
from app.schemas.train_reports import (
    MAX_EPOCHS,
    MAX_SETTINGS,
    ClassImages,
    EpochPoint,
    ReportLineage,
    ReportMistake,
    SettingRead,
    TrainReportRead,
)
from app.services.evaluation.details import EvaluationDetails
from app.services.evaluation.report.lineage import Origin
from app.services.evaluation.stored import read_metrics

# Characters of the value of a setting.
_MAX_VALUE = 400
# Settings that are not part of a model's lineage.
_REQUESTED = ("backbone", "allow_incomplete")


@dataclass(frozen=True, slots=True)
class ReportSource:
    """The records of a train job that has succeeded.

    Attributes:
        job: Its row.
        model: The row of its model, with `metric_tables`.
        details: Those of the evaluation that it wrote; empty for jobs of releases before 0.3.
        epochs: In order; empty for solvers without epochs.
        origin: What the dataset's records say.
    """

    job: Job
    model: TrainedModel
    details: EvaluationDetails
    epochs: Sequence[TrainEpoch]
    origin: Origin


def build_report(source: ReportSource) -> TrainReportRead:
    """Return the report, without thumbnails."""
    model, details = source.model, source.details
    metrics = read_metrics(model.metric_tables, model.classes)
    is_validated = any(epoch.validation_loss is not None for epoch in source.epochs)
    return TrainReportRead(
        name=model.name,
        job_id=source.job.id,
        model_id=model.id,
        created_at=model.created_at,
        settings=list(_settings(source)),
        epochs=[_epoch(epoch, is_validated=is_validated) for epoch in source.epochs[:MAX_EPOCHS]],
        held_out_split="validation" if is_validated else "test",
        metrics=metrics,
        mistakes=[ReportMistake(**mistake.model_dump()) for mistake in details.mistakes],
        label_errors=details.label_errors,
        ablation=details.ablation,
        lineage=_lineage(model, metrics, source.origin),
        warnings=_warnings(source),
    )


def _settings(source: ReportSource) -> Iterator[SettingRead]:
    """Yield at most `MAX_SETTINGS` settings; a nested one has its path as name, such as `optimizer.lr`."""
    requested = {name: source.job.spec[name] for name in _REQUESTED if name in source.job.spec}
    training = source.model.lineage.get("training") or {}
    flat = list(_flat({**requested, **training}))
    for name, value in flat[:MAX_SETTINGS]:
        yield SettingRead(name=name, value=value[:_MAX_VALUE])


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _epoch(epoch: TrainEpoch, *, is_validated: bool) -> EpochPoint:
    return EpochPoint(
        epoch=epoch.epoch,
        train_loss=epoch.train_loss,
        train_accuracy=epoch.train_accuracy,
        held_out_loss=epoch.validation_loss if is_validated else epoch.test_loss,
        held_out_accuracy=epoch.validation_accuracy if is_validated else epoch.test_accuracy,
    )


def _lineage(model: TrainedModel, metrics: MetricsRead, origin: Origin) -> ReportLineage:
    dataset = model.lineage.get("dataset") or {}
    return ReportLineage(
        dataset_id=model.dataset_id,
        dataset_name=dataset.get("name") or "(not recorded)",
        dataset_version=dataset.get("version"),
        backbone=model.backbone,
        backbone_sha256=model.backbone_sha256,
        preprocessing=_preprocessing((model.lineage.get("backbone") or {}).get("preprocessing")),
        model_sha256=model.sha256,
        generator=origin.generator,
        classes=_evaluated_images(metrics, model.classes) or origin.classes,
        prompts=origin.prompts,
        num_prompts=origin.num_prompts,
    )


def _preprocessing(stored: Any) -> str:
    if not isinstance(stored, dict):
        return str(stored) if stored else "(not recorded)"
    if "parts" in stored:
        return " | ".join(f"{part['name']}: {_preprocessing(part['preprocessing'])}" for part in stored["parts"])
    known = {name: stored.get(name) for name in ("library", "resize", "crop", "crop_mode", "interpolation")}
    mean, std = (", ".join(f"{value:.4g}" for value in stored.get(name) or []) for name in ("mean", "std"))
    return (
        f"{known['library']}: shorter side to {known['resize']} pixels ({known['interpolation']}), "
        f"{known['crop_mode']} crop of {known['crop']}; mean {mean}; std {std}"
    )


def _evaluated_images(metrics: MetricsRead, classes: Sequence[str]) -> list[ClassImages]:
    """Return the images of each class as they were at the training, which the metrics counted.

    Empty for models of releases before 0.3, whose metrics do not separate real images.
    """
    splits = (metrics.train, metrics.validation, metrics.test)
    if metrics.train.unseparated is not None or not any(split.real or split.synthetic for split in splits):
        return []
    train, validation, test = (_sum(_supports(s.real), _supports(s.synthetic), len(classes)) for s in splits)
    real = [0] * len(classes)
    for split in splits:
        real = _sum(real, _supports(split.real), len(classes))
    return [
        ClassImages(class_name=name, num_train=a, num_validation=b, num_test=c, num_real=d)
        for name, a, b, c, d in zip(classes, train, validation, test, real, strict=True)
    ]


def _supports(figures: SplitMetricsRead | None) -> list[int]:
    return [] if figures is None else [one.support for one in figures.per_class]


def _sum(first: Sequence[int], second: Sequence[int], length: int) -> list[int]:
    padded = ([*counts, *[0] * (length - len(counts))] for counts in (first, second))
    return [a + b for a, b in zip(*padded, strict=True)]


def _warnings(source: ReportSource) -> list[WarningRead]:
    """Return the warnings of the request, of the evaluation and of the records, each once."""
    accepted = [WarningRead.model_validate(one) for one in source.job.spec.get("warnings") or []]
    every = [*source.details.warnings, *accepted, *source.origin.warnings]
    return list({(one.code, one.detail): one for one in every}.values())
