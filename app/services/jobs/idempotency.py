"""How work is handed in beside what it is: how urgent, and under which key of the client's.

A key is claimed at the beginning of the transaction that accepts the work and kept with the answer at its
end, so that work and key exist together or not at all. Knows no kind of work; runs in the API process.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.db.base import utc_now
from app.db.models import IdempotencyKey
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Invalid

KEPT = timedelta(hours=24)
# Expired keys that each new one takes with it: more than come, so that the table holds about a day's.
_SWEPT_AT_A_TIME = 100

Answer = TypeVar("Answer", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Submission:
    """One request to do work.

    Attributes:
        priority: -100 .. 100, higher first.
        key: The client's `Idempotency-Key`; None: each request is new work.
        fingerprint: SHA-256 of the route and the body, in hexadecimal.
    """

    priority: int = 0
    key: str | None = None
    fingerprint: str = ""


ANEW = Submission()


class Replayed(Exception):
    """This request was answered before: here is that answer.

    Attributes:
        status: HTTP status.
        location: Path of what was made.
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

    Of several requests with one key at a time, the first inserts the key and the others wait for its commit.

    Args:
        db: Where work and key are kept.
        submission: The request's key, if it has one.
        work: Adds the rows; nothing slow.
        location: Names the path of what was made.

    Raises:
        Replayed: The key has been answered, by this same request.
        Invalid: The key belongs to another request.
    """
    with db.transaction() as session:
        if submission.key is None:
            return work(session)
        row = _claim(session, submission)
        answer = work(session)
        row.location, row.answer = location(answer), answer.model_dump_json()
        return answer


def recall(db: Database, submission: Submission) -> None:
    """Return if the key is new: asked before anything else, so that a replay needs neither models nor room.

    Raises:
        Replayed: The key has been answered, by this same request.
        Invalid: The key belongs to another request.
    """
    if submission.key is not None:
        with db.snapshot() as session:
            stored = session.get(IdempotencyKey, submission.key)
            if stored is not None and not _is_expired(stored):
                raise _conclusion(stored, submission)


def _claim(session: Session, submission: Submission) -> IdempotencyKey:
    _sweep(session)
    stored = session.get(IdempotencyKey, submission.key)
    if stored is not None and _is_expired(stored):
        session.delete(stored)
        session.flush()
    elif stored is not None:
        raise _conclusion(stored, submission)
    row = IdempotencyKey(key=submission.key, fingerprint=submission.fingerprint, status=202, location="", answer="")
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:  # a twin was faster; it has committed, or its row would not be in the way
        raise _conclusion(session.get_one(IdempotencyKey, submission.key), submission) from None
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
