"""A submission's priority and idempotency key, and the transaction that accepts work once for each key.

A key is claimed at the start of the transaction that accepts the work, and stored with the answer at its end, so that
work and key exist together or not at all. Imports no kind of job. Runs in the API process, on any thread.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import LOCAL, Caller
from app.db.base import utc_now
from app.db.models import IdempotencyKey
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Invalid

KEPT = timedelta(hours=24)
# Expired keys that each new key deletes: more than one, so that the table holds about one day of keys.
_SWEPT_AT_A_TIME = 100

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Submission:
    """How work was submitted.

    Attributes:
        priority: -100 .. 100, higher first.
        key: The client's `Idempotency-Key`; None: each request is new work.
        fingerprint: SHA-256 of the route and the body, in hexadecimal.
        caller: Who submits it; the work belongs to his API key.
    """

    priority: int = 0
    key: str | None = None
    fingerprint: str = ""
    caller: Caller = LOCAL

    @property
    def stored_key(self) -> str:
        """The primary key of the answer: callers with different API keys never meet each other's answers.

        An `Idempotency-Key` has no spaces, so none is equal to the stored one of a caller with an API key.
        """
        if self.caller.key_id is None:
            return self.key or ""
        return f"key {hashlib.sha256(f'{self.caller.key_id} {self.key}'.encode()).hexdigest()}"


ANEW = Submission()


class Replayed(Exception):
    """A request with this key was answered before; carries that answer.

    Attributes:
        status: HTTP status.
        location: The path of the resource that was created.
        answer: JSON text.
    """

    def __init__(self, stored: IdempotencyKey) -> None:
        self.status = stored.status
        self.location = stored.location
        self.answer = stored.answer
        super().__init__(self.location)


def accept(
    db: Database, submission: Submission, work: Callable[[Session], Answer], *, location: Callable[[Answer], str]
) -> Answer:
    """Add work in one transaction, once for each key, and return its answer.

    Of several concurrent requests with one key, the first inserts the key and the others wait for its commit.

    Args:
        db: The database of the work and the key.
        submission: The request's key, if it has one.
        work: Adds the rows and returns the answer; it must not wait for anything.
        location: Returns the path of the resource that was created.

    Raises:
        Replayed: The key has an answer already, to the same request.
        Invalid: The key was used with another request.
    """
    with db.transaction() as session:
        if submission.key is None:
            return work(session)
        row = _claim(session, submission)
        answer = work(session)
        row.location, row.answer = location(answer), answer.model_dump_json()
        return answer


def recall(db: Database, submission: Submission) -> None:
    """Return if the key is new; called first, so that a replay needs neither models nor disk space.

    Raises:
        Replayed: The key has an answer already, to the same request.
        Invalid: The key was used with another request.
    """
    if submission.key is not None:
        with db.snapshot() as session:
            stored = session.get(IdempotencyKey, submission.stored_key)
            if stored is not None and not _is_expired(stored):
                raise _conclusion(stored, submission)


def _claim(session: Session, submission: Submission) -> IdempotencyKey:
    _sweep(session)
    stored = session.get(IdempotencyKey, submission.stored_key)
    if stored is not None and _is_expired(stored):
        session.delete(stored)
        session.flush()
    elif stored is not None:
        raise _conclusion(stored, submission)
    row = IdempotencyKey(
        key=submission.stored_key, fingerprint=submission.fingerprint, status=202, location="", answer=""
    )
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # a concurrent request with the same key has committed first
        raise _conclusion(session.get_one(IdempotencyKey, submission.stored_key), submission) from None
    return row


def _conclusion(stored: IdempotencyKey, submission: Submission) -> Exception:
    if stored.fingerprint == submission.fingerprint:
        return Replayed(stored)
    return Invalid("This key was used with another request. Use a new one.", code=ErrorCode.IDEMPOTENCY_KEY_REUSED)


def _is_expired(stored: IdempotencyKey) -> bool:
    return stored.created_at < utc_now() - KEPT


def _sweep(session: Session) -> None:
    expired = (
        select(IdempotencyKey.key)
        .where(IdempotencyKey.created_at < utc_now() - KEPT)
        .order_by(IdempotencyKey.created_at)
        .limit(_SWEPT_AT_A_TIME)
        .with_for_update(skip_locked=True)
    )
    keys = session.scalars(expired).all()
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.key.in_(keys)))
