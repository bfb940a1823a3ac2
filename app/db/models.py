"""The tables: what was generated, which datasets and jobs exist, what was trained.

Rows point at files by a path relative to the data folder; no row exists before its file. The job
engine's own tables stand beside these and are not described here.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    String,
    Text,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.db.base import Base, Id, utc_now

ACTIVE_JOB_STATUSES = ("queued", "running", "paused")
JOB_STATUSES = (*ACTIVE_JOB_STATUSES, "succeeded", "failed", "cancelled")
IMAGE_SOURCES = ("synthetic", "real")
ACTIVE_DATASET_STATUSES = ("queued", "generating")
DATASET_STATUSES = ("empty", "queued", "generating", "ready", "incomplete", "failed", "cancelled")
DECISIONS = ("kept", "rejected")

_PLACE = ("dataset_id", "split", "class_index", "position")
_KEPT = text("decision = 'kept'")
_ACTIVE = text(f"status IN ({', '.join(repr(status) for status in ACTIVE_JOB_STATUSES)})")


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(value) for value in values)})", name=f"{column}_known")


class Generation(Base):
    """One answered `/generate` request: what was asked, with every value as used."""

    __tablename__ = "generations"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    job_id: Mapped[str | None] = mapped_column(Id, index=True)
    pack: Mapped[str] = mapped_column(String(64))
    pack_revision: Mapped[str] = mapped_column(String(128))
    parameters: Mapped[dict[str, Any]]
    warnings: Mapped[list[Any]]
    timings: Mapped[dict[str, Any]]


class Image(Base):
    """One stored image with its lineage; of a generation or of a dataset."""

    __tablename__ = "images"
    __table_args__ = (
        CheckConstraint("(generation_id IS NULL) != (dataset_id IS NULL)", name="has_one_owner"),
        _one_of("source", IMAGE_SOURCES),
        _one_of("decision", DECISIONS),
        # A place has one kept image, and as many rejected ones as were tried before it.
        Index("ix_images_place", *_PLACE, "decision"),
        Index("uq_images_kept_place", *_PLACE, unique=True, sqlite_where=_KEPT, postgresql_where=_KEPT),
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
    # Made here, or uploaded; an uploaded one is in its dataset once, by the hash of its pixels.
    source: Mapped[str] = mapped_column(String(16), default="synthetic", server_default="synthetic")
    pixels_sha256: Mapped[str | None] = mapped_column(String(64))
    # CLIP's embedding of the image, of length 1, as little-endian float16; loaded only where it is asked for.
    clip_embedding: Mapped[bytes | None] = mapped_column(deferred=True)
    # What a dataset's filter said, and why; rejected images are no part of their dataset.
    decision: Mapped[str] = mapped_column(String(8), default="kept", server_default="kept")
    reason: Mapped[str | None] = mapped_column(String(100))
    # How the image came to be: prompt, seed, steps, pack, revision, dtype, torch version, ...
    lineage: Mapped[dict[str, Any]]

    generation_id: Mapped[str | None] = mapped_column(ForeignKey("generations.id", ondelete="CASCADE"), index=True)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    split: Mapped[str | None] = mapped_column(String(8))
    class_index: Mapped[int | None]
    # Position among its generation's images, or among its class's images in this split.
    position: Mapped[int]
    seed: Mapped[int | None] = mapped_column(BigInteger)


class Dataset(Base):
    """A labelled dataset: its folder's name is its own."""

    __tablename__ = "datasets"
    __table_args__ = (_one_of("status", DATASET_STATUSES),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    seed: Mapped[int] = mapped_column(BigInteger)
    # [{"name", "folder", "label", "num_prompts"}, ...]; a class is known by its index here.
    classes: Mapped[list[Any]]
    train_per_class: Mapped[int]
    test_per_class: Mapped[int]
    # Settings of an image; guidance_scale and num_inference_steps may be {"min", "max"}.
    generation: Mapped[dict[str, Any]]
    # {"preset", "combine", "filter", "max_attempts"}; None from before there were recipes.
    recipe: Mapped[dict[str, Any] | None]
    # [{"class_name", "split", "position", "num_rejected", ...}, ...]: the first places that stayed empty.
    missing: Mapped[list[Any] | None]
    job_id: Mapped[str | None] = mapped_column(Id)
    pack: Mapped[str | None] = mapped_column(String(64))
    pack_revision: Mapped[str | None] = mapped_column(String(128))
    # Never read unless it is asked for together with the dataset.
    texts: Mapped["DatasetTexts"] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, single_parent=True, lazy="raise"
    )


class DatasetTexts(Base):
    """The texts that a dataset's images are drawn from: up to megabytes that are written once, and no list shows."""

    __tablename__ = "dataset_texts"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    # [{"prompts", "negative_prompt"}, ...] by the index of the class.
    classes: Mapped[list[Any]]
    # {name: [value, ...], ...}
    variables: Mapped[dict[str, Any]]


class Job(Base):
    """A piece of background work as its users see it; `version` grows with every change."""

    __tablename__ = "jobs"
    __table_args__ = (
        _one_of("status", JOB_STATUSES),
        Index("ix_jobs_kind_id", "kind", "id"),
        # Small whatever has ended: how many wait, and what the reaper looks through. See `active_jobs`.
        Index("ix_jobs_active", "id", "kind", "status", sqlite_where=_ACTIVE, postgresql_where=_ACTIVE),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    status: Mapped[str] = mapped_column(String(16), default="queued")
    spec: Mapped[dict[str, Any]]
    progress_done: Mapped[int] = mapped_column(default=0)
    progress_total: Mapped[int] = mapped_column(default=0)
    progress_unit: Mapped[str] = mapped_column(String(16))
    result: Mapped[dict[str, Any] | None]
    # A problem as of errors.py: {"type", "title", "status", "detail", "code"}.
    error: Mapped[dict[str, Any] | None]
    attempts: Mapped[int] = mapped_column(default=0)
    # Higher runs first, among jobs and among their chunks.
    priority: Mapped[int] = mapped_column(default=0)
    retry_of: Mapped[str | None] = mapped_column(Id)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    # Set from the wish to pause until the wish to go on; the status follows when nothing of the job runs.
    pause_requested: Mapped[bool] = mapped_column(default=False)
    # Set by the wish to go on, and left: should a worker that stalled put the job aside after that, it is queued again.
    wake_requested: Mapped[bool] = mapped_column(default=False)
    # The latest [unix seconds, units done], oldest first; where rate and estimated end come from.
    pace: Mapped[list[Any]] = mapped_column(default=list)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


def active_jobs() -> ColumnElement[bool]:
    """Match the jobs that have not ended, in the words of their index: with bound values it would not be taken."""
    return Job.status.in_([literal_column(repr(status), String) for status in ACTIVE_JOB_STATUSES])


class IdempotencyKey(Base):
    """A client's word for one piece of work, and what was answered when it was accepted."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, index=True)
    # SHA-256 of the route and the body: the same key with another request is a mistake.
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    location: Mapped[str] = mapped_column(String(255))
    # JSON text as it was sent; a JSON column would sort its keys on Postgres.
    answer: Mapped[str] = mapped_column(Text)


class TrainedModel(Base):
    """A classifier head trained here, with what it was trained on and how well it does."""

    __tablename__ = "models"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    job_id: Mapped[str] = mapped_column(Id, unique=True)
    dataset_id: Mapped[str] = mapped_column(Id)
    backbone: Mapped[str] = mapped_column(String(32))
    # SHA-256 of the backbone's weights: the head means nothing on others.
    backbone_sha256: Mapped[str] = mapped_column(String(64))
    classes: Mapped[list[Any]]
    # Single figures of each split.
    metrics: Mapped[dict[str, Any]]
    # Of each split, what grows with the classes and their square: figures of each class, the confusion matrix.
    metric_tables: Mapped[dict[str, Any]] = mapped_column(deferred=True, default=dict, server_default="{}")
    lineage: Mapped[dict[str, Any]]
    path: Mapped[str] = mapped_column(String(512))
    sha256: Mapped[str] = mapped_column(String(64))
    num_bytes: Mapped[int] = mapped_column(BigInteger)


class TrainEpoch(Base):
    """What one epoch of a train job gave."""

    __tablename__ = "train_epochs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    train_loss: Mapped[float]
    train_accuracy: Mapped[float]
    test_loss: Mapped[float | None]
    test_accuracy: Mapped[float | None]
    lr: Mapped[float]
    elapsed_ms: Mapped[float]


class Worker(Base):
    """A running worker process; `beat_at` is by the database's clock."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    beat_at: Mapped[datetime] = mapped_column(default=utc_now)


class Store(Base):
    """Which store these records belong to, in one row; the same id stands in the data folder, see `store_id.py`."""

    __tablename__ = "store"
    __table_args__ = (CheckConstraint('"row" = 1', name="one_row"),)

    row: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=1)
    id: Mapped[str] = mapped_column(Id)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
