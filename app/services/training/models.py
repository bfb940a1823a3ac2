"""The service for trained models: list, read, download, delete, and load the head that `/classify` uses.

Imports no HTTP framework and no inference engine. Methods run on a worker thread of the API process.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy import or_, select
from sqlalchemy.orm import Session, defer

from app.access.caller import Caller
from app.access.visibility import seen
from app.db.models import TrainedModel
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import FieldError, FileLost, Invalid, NotFound
from app.names import name_key
from app.schemas.generations import ModelRef
from app.schemas.models import ModelPage, ModelRead, ModelSummary
from app.services.evaluation.stored import read_metrics, read_summary
from app.services.images.service import StoredFile
from app.services.pagination import count_matches, fetch_page, json_bytes, matching
from app.services.store.model_files import model_file_lost, read_model_file
from app.storage.exports import forget_exports
from app.storage.layout import DataFolder
from app.storage.soundness import FileChecks
from app.training.linear_probe import LinearProbe, load_probe, predict

MAX_LOADED_HEADS = 32
# Columns that a summary has as they are.
_COLUMNS = (
    "id",
    "name",
    "created_at",
    "job_id",
    "dataset_id",
    "backbone",
    "backbone_sha256",
    "classes",
    "sha256",
    "num_bytes",
)


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Head:
    """A loaded classifier head.

    Attributes:
        ref: The model's name in the answer.
        classes: (K,), labels by index.
        probe: Maps features (N, D) to probabilities (N, K).
        backbone: Name of the backbone that it was trained on.
        backbone_sha256: The weights of that backbone.
        preprocessing: That of the features, as `Preprocessing.to_json`; None in models of releases before 0.3, which
            did not store it in this form.
    """

    ref: ModelRef
    classes: list[str]
    probe: LinearProbe
    backbone: str
    backbone_sha256: str
    preprocessing: Mapping[str, Any] | None

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Return the probabilities of rows of features: (N, D) to (N, K)."""
        return predict(self.probe, features)


class ModelService:
    """Lists, reads, loads and deletes trained models."""

    def __init__(self, db: Database, folder: DataFolder, checks: FileChecks) -> None:
        """Wire the service; `folder` is the node's data folder, `checks` verifies its files."""
        self._db = db
        self._folder = folder
        self._checks = checks
        # The file of a model never changes, so its head can be cached; one of 512 x 1,000 takes 2 MB.
        self._probe = lru_cache(maxsize=MAX_LOADED_HEADS)(self._load_probe)

    def page(
        self,
        limit: int,
        cursor: str | None,
        caller: Caller,
        *,
        name: str | None = None,
        dataset_id: str | None = None,
        created_after: datetime | None = None,
    ) -> ModelPage:
        """Return a page of the models that a caller sees, newest first; of those that match what is given."""
        query = matching(
            select(TrainedModel).where(seen(TrainedModel.key_id, caller)),
            (TrainedModel.name, name),
            (TrainedModel.dataset_id, dataset_id),
            newer=(TrainedModel.created_at, created_after),
        )
        with self._db.snapshot() as session:
            slim = query.options(defer(TrainedModel.lineage, raiseload=True))
            rows, next_cursor = fetch_page(
                session, slim, TrainedModel.id, limit, cursor, weigh=lambda row: json_bytes(row.classes)
            )
            items = [ModelSummary(**_fields(row), metrics=read_summary(row.metrics, {})) for row in rows]
            return ModelPage(items=items, next_cursor=next_cursor, total=count_matches(session, query))

    def read(self, model_id: str) -> ModelRead:
        """Return one model.

        Raises:
            NotFound: There is none with this id.
        """
        with self._db.snapshot() as session:
            row = find_model(session, model_id)
            metrics = read_metrics(row.metric_tables, row.classes)
            return ModelRead(**_fields(row), lineage=row.lineage, metrics=metrics)

    def weights(self, model_id: str) -> StoredFile:
        """Return the safetensors file of a model.

        Raises:
            NotFound: There is none with this id.
            FileLost: Its file is missing or damaged.
        """
        with self._db.snapshot() as session:
            row = find_model(session, model_id)
        if fault := self._checks.fault(row.path, num_bytes=row.num_bytes, sha256=row.sha256):
            raise model_file_lost(fault)
        return StoredFile(
            self._folder.locate(row.path), "application/octet-stream", row.sha256, f"{row.name}.safetensors"
        )

    def delete(self, model_id: str) -> None:
        """Delete a model with its file and its exports.

        Raises:
            NotFound: There is none with this id.
        """
        self._folder.delete(self._folder.reserve.spend(lambda: self._forget(model_id)))
        forget_exports(self._folder, model_id)
        self._probe.cache_clear()

    def head(self, id_or_name: str, caller: Caller) -> Head:
        """Return a trained head for `/classify` if the caller sees its model.

        Raises:
            Invalid: There is no model of this id or name.
            FileLost: Its file is missing or damaged.
        """
        with self._db.snapshot() as session:
            either = or_(TrainedModel.id == id_or_name, TrainedModel.name == name_key(id_or_name))
            row = session.scalar(select(TrainedModel).where(either, seen(TrainedModel.key_id, caller)))
        if row is None:
            raise Invalid.field("#/model", "There is no model with this id or name.", ErrorCode.MODEL_NOT_FOUND)
        try:
            return self._head_of(row)
        except FileLost as lost:
            lost.errors = (FieldError("#/model", lost.detail, lost.code),)
            raise

    def head_of(self, model_id: str) -> Head:
        """Return the head of one model.

        Raises:
            NotFound: There is none with this id.
            FileLost: Its file is missing or damaged.
        """
        with self._db.snapshot() as session:
            row = find_model(session, model_id)
        return self._head_of(row)

    def exists(self, model_id: str) -> bool:
        """Return whether there is a model with this id."""
        with self._db.snapshot() as session:
            return session.get(TrainedModel, model_id) is not None

    def _head_of(self, row: TrainedModel) -> Head:
        probe = self._probe(_File(row.path, row.num_bytes, row.sha256))
        ref = ModelRef(id=row.id, name=row.name, revision=row.sha256[:12])
        stored = row.lineage.get("backbone", {}).get("preprocessing")
        return Head(
            ref=ref,
            classes=list(row.classes),
            probe=probe,
            backbone=row.backbone,
            backbone_sha256=row.backbone_sha256,
            preprocessing=stored if isinstance(stored, dict) else None,
        )

    def _forget(self, model_id: str) -> str:
        """Delete a model's record and return the path of its file."""
        with self._db.transaction() as session:
            row = find_model(session, model_id)
            session.delete(row)
        return row.path

    def _load_probe(self, file: _File) -> LinearProbe:
        return load_probe(read_model_file(self._checks, file))


def find_model(session: Session, model_id: str) -> TrainedModel:
    """Return the row of a model.

    Raises:
        NotFound: There is none with this id.
    """
    row = session.get(TrainedModel, model_id)
    if row is None:
        raise NotFound("There is no model with this id.")
    return row


def _fields(row: TrainedModel) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _COLUMNS}
