"""Whose objects a caller sees: conditions for lists, and the check of one object by its id.

An object belongs to the API key that it was created with; an image to that of its generation or dataset, an evaluation
to that of its model. Imports no HTTP and no services. Called on threads, inside a session or with a database.
"""

from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute

from app.access.caller import Caller
from app.db.models import Dataset, Generation, Image, Job, TrainedModel
from app.db.session import Database
from app.errors import NotFound

Kind = Literal["generation", "image", "dataset", "job", "train job", "model"]

_TABLES: dict[str, type[Generation | Dataset | Job | TrainedModel]] = {
    "generation": Generation,
    "dataset": Dataset,
    "job": Job,
    "train job": Job,
    "model": TrainedModel,
}


def seen(column: InstrumentedAttribute[str | None], caller: Caller) -> ColumnElement[bool]:
    """Match the rows that a caller sees; `column` is their `key_id`."""
    return column == caller.key_id if caller.reads_own else true()


def seen_images(caller: Caller) -> ColumnElement[bool]:
    """Match the images that a caller sees."""
    if not caller.reads_own:
        return true()
    generations = select(Generation.id).where(seen(Generation.key_id, caller))
    datasets = select(Dataset.id).where(seen(Dataset.key_id, caller))
    return or_(Image.generation_id.in_(generations), Image.dataset_id.in_(datasets))


class Visibility:
    """Checks single objects by their ids."""

    def __init__(self, db: Database) -> None:
        """Use a database."""
        self._db = db

    def require(self, kind: Kind, object_id: str, caller: Caller) -> None:
        """Raise if the caller does not see an object, with the error of an id that does not exist.

        Raises:
            NotFound: There is no such object, or it belongs to another key.
        """
        with self._db.snapshot() as session:
            if session.scalar(_one(kind, object_id, caller)) is None:
                raise _not_found(kind)

    def named(self, kind: Kind, name: str, caller: Caller) -> str:
        """Return the id of the dataset, model or train job of a name that the caller sees.

        Several train jobs may have had one name, since a failed one frees it: the newest counts.

        Raises:
            NotFound: There is none, or it belongs to another key.
        """
        with self._db.snapshot() as session:
            found = session.scalar(_of_name(kind, name, caller))
        if found is None:
            raise NotFound(f"There is no {kind} with this id or name.")
        return found

    def job_kind(self, job_id: str, caller: Caller) -> str:
        """Return the kind of a job.

        Raises:
            NotFound: There is no such job, or it belongs to another key.
        """
        with self._db.snapshot() as session:
            kind = session.scalar(select(Job.kind).where(Job.id == job_id, seen(Job.key_id, caller)))
        if kind is None:
            raise _not_found("job")
        return kind


def _not_found(kind: Kind) -> NotFound:
    return NotFound(f"There is no {kind} with this id.")


def _one(kind: Kind, object_id: str, caller: Caller) -> Select[Any]:
    if kind == "image":
        return select(Image.id).where(Image.id == object_id, seen_images(caller))
    table = _TABLES[kind]
    is_kind = Job.kind == "train" if kind == "train job" else true()
    return select(table.id).where(table.id == object_id, seen(table.key_id, caller), is_kind)


def _of_name(kind: Kind, name: str, caller: Caller) -> Select[str]:
    if kind == "train job":
        jobs = select(Job.id).where(Job.kind == "train", Job.spec["name"].as_string() == name)
        return jobs.where(seen(Job.key_id, caller)).order_by(Job.id.desc()).limit(1)
    table = Dataset if kind == "dataset" else TrainedModel
    return select(table.id).where(table.name == name, seen(table.key_id, caller))
