"""The tables: generations, images, datasets, jobs, trained models, workers, files to remove.

A row refers to a file by its path relative to the data folder; the file is written before the row. The job engine's
own tables are in the same database and are not described here. The module opens no session; any thread may use it.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ColumnElement, ForeignKey, Index, String, Text, literal_column, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

import app.db.caller_tables
import app.db.picture_tables  # noqa: F401  (whoever knows these tables knows all)
from app.db.base import Base, Id, utc_now

ACTIVE_JOB_STATUSES = ("queued", "running", "paused")
JOB_STATUSES = (*ACTIVE_JOB_STATUSES, "succeeded", "failed", "cancelled")
IMAGE_SOURCES = ("synthetic", "real")
ACTIVE_DATASET_STATUSES = ("queued", "generating")
DATASET_STATUSES = ("empty", "queued", "generating", "ready", "incomplete", "failed", "cancelled")
DECISIONS = ("kept", "rejected")
REVIEWS = ("accepted", "rejected")

_PLACE = ("dataset_id", "split", "class_index", "position")
# What a list of a dataset's images is filtered by.
_FILTERS = ("decision", "split", "class_index", "review", "source", "clip_score")
_KEPT = text("decision = 'kept'")
_ACTIVE = text(f"status IN ({', '.join(repr(status) for status in ACTIVE_JOB_STATUSES)})")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})", name=f"{column}_known")


class Generation(Base):
    """One answered `/generate` request with every parameter as used."""

    __tablename__ = "generations"
    __table_args__ = (
        Index("ix_generations_key_id_id", "key_id", "id"),
        # The oldest are removed first (`app/services/store/retention.py`).
        Index("ix_generations_created_at_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    # The API key of the request, here and in other tables; None: a request without a key.
    key_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    job_id: Mapped[str | None] = mapped_column(Id, index=True)
    pack: Mapped[str] = mapped_column(String(64))
    pack_revision: Mapped[str] = mapped_column(String(128))
    parameters: Mapped[dict[str, Any]]
    warnings: Mapped[list[Any]]
    timings: Mapped[dict[str, Any]]


class Image(Base):
    """One stored image with its lineage; it belongs to a generation or to a dataset."""

    __tablename__ = "images"
    __table_args__ = (
        CheckConstraint("(generation_id IS NULL) != (dataset_id IS NULL)", name="has_one_owner"),
        _one_of("source", IMAGE_SOURCES),
        _one_of("decision", DECISIONS),
        _one_of("review", REVIEWS),
        # A slot (class, split, position) has one kept image, and the rejected images of the attempts before it.
        # Has every column by which a dataset's images are counted, so that their rows are not read.
        Index("ix_images_place", *_PLACE, "decision", "review"),
        Index("uq_images_kept_place", *_PLACE, unique=True, sqlite_where=_KEPT, postgresql_where=_KEPT),
        # Lists of a dataset's images, newest first. Has every column that they are filtered by: a filter that few
        # images meet would otherwise read the rows of all, which are large.
        Index("ix_images_listed", "dataset_id", "id", *_FILTERS),
        Index("ix_images_dataset_id_pixels_sha256", "dataset_id", "pixels_sha256", unique=True),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    path: Mapped[str] = mapped_column(String(512), unique=True)
    format: Mapped[str] = mapped_column(String(8))
    width: Mapped[int]
    height: Mapped[int]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    flagged: Mapped[bool | None]
    clip_score: Mapped[float | None]
    label_probabilities: Mapped[list[Any] | None]
    # Generated or uploaded. The hash of the pixels keeps an image from being uploaded twice to a dataset.
    source: Mapped[str] = mapped_column(String(16), default="synthetic", server_default="synthetic")
    pixels_sha256: Mapped[str | None] = mapped_column(String(64))
    # CLIP's embedding of the image, normalized to length 1, little-endian float16; loaded on access only.
    clip_embedding: Mapped[bytes | None] = mapped_column(deferred=True)
    # The decision of the dataset's filter and its reason; rejected images do not belong to the dataset.
    decision: Mapped[str] = mapped_column(String(8), default="kept", server_default="kept")
    reason: Mapped[str | None] = mapped_column(String(100))
    # What a person decided about an image of a dataset; None: nothing yet. Rejected ones keep their slots and files.
    review: Mapped[str | None] = mapped_column(String(8))
    # What the image was made from: prompt, seed, steps, pack, revision, dtype, torch version, ...
    lineage: Mapped[dict[str, Any]]

    generation_id: Mapped[str | None] = mapped_column(ForeignKey("generations.id", ondelete="CASCADE"), index=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    split: Mapped[str | None] = mapped_column(String(16))
    class_index: Mapped[int | None]
    # Index among the images of the generation, or among those of the class in this split.
    position: Mapped[int]
    seed: Mapped[int | None] = mapped_column(BigInteger)


class Dataset(Base):
    """A labelled dataset; its folder has the same name."""

    __tablename__ = "datasets"
    __table_args__ = (_one_of("status", DATASET_STATUSES), Index("ix_datasets_key_id_id", "key_id", "id"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    key_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    seed: Mapped[int] = mapped_column(BigInteger)
    # [{"name", "folder", "label", "num_prompts"}, ...]; other columns refer to a class by its index here.
    classes: Mapped[list[Any]]
    train_per_class: Mapped[int]
    validation_per_class: Mapped[int] = mapped_column(default=0, server_default="0")
    test_per_class: Mapped[int]
    # Image settings; guidance_scale and num_inference_steps may be {"min", "max"}.
    generation: Mapped[dict[str, Any]]
    # {"preset", "combine", "filter", "max_attempts"}; None in rows that are older than recipes.
    recipe: Mapped[dict[str, Any] | None]
    # [{"class_name", "split", "position", "num_rejected", ...}, ...]: the first slots that stayed empty.
    missing: Mapped[list[Any] | None]
    job_id: Mapped[str | None] = mapped_column(Id)
    pack: Mapped[str | None] = mapped_column(String(64))
    pack_revision: Mapped[str | None] = mapped_column(String(128))
    # Loaded only if the query of the dataset requests it.
    texts: Mapped["DatasetTexts"] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, single_parent=True, lazy="raise"
    )


class DatasetTexts(Base):
    """Prompts and variables of a dataset: up to 2 MB, written once and not part of lists."""

    __tablename__ = "dataset_texts"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    # [{"prompts", "negative_prompt"}, ...] by the index of the class.
    classes: Mapped[list[Any]]
    # {name: [value, ...], ...}
    variables: Mapped[dict[str, Any]]


class Job(Base):
    """A background job as the API returns it; `version` grows with every change."""

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("status", JOB_STATUSES),
        Index("ix_jobs_kind_id", "kind", "id"),
        Index("ix_jobs_key_id_id", "key_id", "id"),
        # Covers active jobs only, so it stays small. Used to count waiting jobs and by the reaper; see `active_jobs`.
        Index("ix_jobs_active", "id", "kind", "status", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
        # Used to count a caller's active jobs at each submission, and its running ones at each chunk.
        Index("ix_jobs_caller", "caller", "status", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    key_id: Mapped[str | None] = mapped_column(Id)
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="queued")
    spec: Mapped[dict[str, Any]]
    progress_done: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int] = mapped_column(default=0)
    progress_unit: Mapped[str] = mapped_column(String(16))
    # What the job does now, such as `features`; null for kinds with one phase.
    progress_phase: Mapped[str | None] = mapped_column(String(16))
    result: Mapped[dict[str, Any] | None]
    # A problem in the form of errors.py: {"type", "title", "status", "detail", "code"}.
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(default=0)
    # Higher priorities run first, among jobs and among their chunks.
    priority: Mapped[int] = mapped_column(default=0)
    retry_of: Mapped[str | None] = mapped_column(Id)
    # Who submitted it, such as `address:127.0.0.1`; callers share workers and engine. Empty in rows before 0.4.
    caller: Mapped[str] = mapped_column(String(128), default="", server_default="")
    # Charged to the caller's day when the job was accepted; see `app.access.quotas`.
    pixel_steps: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    # The `X-Request-Id` of the request that made the job; every line that a worker logs for the job has it.
    request_id: Mapped[str | None] = mapped_column(String(64))
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    # Set by a pause request and cleared by a resume request; the status changes once nothing of the job runs.
    pause_requested: Mapped[bool] = mapped_column(default=False)
    # Set by a resume request and never cleared: if a stalled worker pauses the job later, it is queued again.
    wake_requested: Mapped[bool] = mapped_column(default=False)
    # The latest [unix seconds, units done], oldest first; the rate and the estimated end are computed from it.
    pace: Mapped[list[Any]] = mapped_column(default=list)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


def active_jobs() -> ColumnElement[bool]:
    """Match the jobs that have not ended.

    The values are literals, as in the condition of the partial index: databases do not use it for bound parameters.
    """
    return Job.status.in_([literal_column(repr(status), String) for status in ACTIVE_JOB_STATUSES])


class IdempotencyKey(Base):
    """An `Idempotency-Key` and the response to the request that it was accepted with."""

    __tablename__ = "idempotency_keys"

    # As sent, or a hash of it and the API key: each API key has `Idempotency-Key`s of its own.
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    # SHA-256 of the route and the body; the same key with another request is refused.
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    location: Mapped[str] = mapped_column(String(255))
    # The JSON text as sent; a JSON column would reorder its keys on Postgres.
    answer: Mapped[str] = mapped_column(Text)


class TrainedModel(Base):
    """A classifier head trained by this service, with its origin and its metrics."""

    __tablename__ = "models"
    __table_args__ = (Index("ix_models_key_id_id", "key_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    key_id: Mapped[str | None] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    job_id: Mapped[str] = mapped_column(Id, unique=True)
    dataset_id: Mapped[str] = mapped_column(Id)
    backbone: Mapped[str] = mapped_column(String(64))
    # SHA-256 of the backbone's weights; the head is valid for these weights only.
    backbone_sha256: Mapped[str] = mapped_column(String(64))
    classes: Mapped[list[Any]]
    # Scalar metrics of each split.
    metrics: Mapped[dict[str, Any]]
    # Of each split: the metrics of each class and the confusion matrix, whose size grows with the classes.
    metric_tables: Mapped[dict[str, Any]] = mapped_column(deferred=True, default=dict, server_default="{}")
    lineage: Mapped[dict[str, Any]]
    path: Mapped[str] = mapped_column(String(512))
    sha256: Mapped[str] = mapped_column(String(64))
    num_bytes: Mapped[int] = mapped_column(BigInteger)


class TrainEpoch(Base):
    """Metrics of one epoch of a train job."""

    __tablename__ = "train_epochs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    train_loss: Mapped[float]
    train_accuracy: Mapped[float]
    test_loss: Mapped[float | None]
    test_accuracy: Mapped[float | None]
    lr: Mapped[float]
    elapsed_ms: Mapped[float]
    validation_loss: Mapped[float | None]
    validation_accuracy: Mapped[float | None]


class Evaluation(Base):
    """What a model predicts for the images of a dataset's split, and how often it is right.

    A train job writes the one of its own test split; an `evaluate` job writes one for any dataset.
    """

    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id", ondelete="CASCADE"), index=True)
    # A job writes one evaluation, however often its last step is repeated.
    job_id: Mapped[str] = mapped_column(Id, unique=True)
    dataset_id: Mapped[str] = mapped_column(Id)
    # The dataset as it was: name, version and numbers of images.
    dataset: Mapped[dict[str, Any]]
    split: Mapped[str] = mapped_column(String(16))
    # `SourcedMetricsSummary` for lists, and `SourcedMetricsRead`.
    summary: Mapped[dict[str, Any]]
    tables: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    # Mistakes, suspected label errors and warnings (`EvaluationDetails`).
    details: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    # `StoredPredictions`: about 60 bytes for each image.
    predictions: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class RemovedFile(Base):
    """A file whose record was deleted; the row is written with that deletion, and deleted once the file is removed."""

    __tablename__ = "removed_files"

    # Relative to the data folder.
    path: Mapped[str] = mapped_column(String(512), primary_key=True)


class PruneRun(Base):
    """The daily removal of old generated images; the primary key gives each day to one worker."""

    __tablename__ = "prune_runs"

    # In UTC, as 2026-12-01.
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    worker_id: Mapped[str] = mapped_column(String(128))
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    finished_at: Mapped[datetime | None]
    # What was removed so far; each page of generations adds to them in the transaction that deletes its rows.
    num_generations: Mapped[int] = mapped_column(default=0)
    num_images: Mapped[int] = mapped_column(default=0)
    num_bytes: Mapped[int] = mapped_column(BigInteger, default=0)


class Worker(Base):
    """A running worker process; `beat_at` is its last heartbeat, by the clock of the database."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    beat_at: Mapped[datetime] = mapped_column(default=utc_now)


class Store(Base):
    """The id of the store that these records belong to, in one row; the data folder has the same id (`store_id.py`)."""

    __tablename__ = "store"
    __table_args__ = (CheckConstraint('"row" = 1', name="one_row"),)

    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    id: Mapped[str] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
