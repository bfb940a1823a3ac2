"""API keys for administrators over HTTP: list, create, limit, revoke, and what a key uses of its quotas.

Imports no HTTP framework. Methods run on a worker thread of the API process; other API processes apply a change within
5 s. The log names keys by their ids, never by what a client would send.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.access.caller import Caller, Scope, Shares
from app.access.keys import (
    KeyNameTaken,
    KeyRecord,
    LastAdminKey,
    NoSuchKey,
    TooManyKeys,
    create_key,
    find_key,
    limit_key,
    record_of,
    revoke_key,
)
from app.access.quotas import stored_bytes
from app.db.base import utc_now
from app.db.caller_tables import ApiKey, Usage
from app.db.session import Database
from app.error_codes import ErrorCode
from app.errors import Conflict, Forbidden, NotFound
from app.schemas.keys import (
    KeyCreate,
    KeyCreatedRead,
    KeyDetail,
    KeyLimits,
    KeyLimitsRead,
    KeyPage,
    KeyRead,
    KeyUse,
)
from app.services.pagination import count_matches, fetch_page

log = logging.getLogger("foxhound.keys")


class KeyService:
    """The keys of the database; every method is for callers with the scope `admin`."""

    def __init__(self, db: Database, shares: Shares) -> None:
        """Use a database; `shares` are the bounds of keys that do not have their own."""
        self._db = db
        self._shares = shares

    def page(self, limit: int, cursor: str | None) -> KeyPage:
        """Return a page of all keys, revoked and expired ones too, newest first."""
        query = select(ApiKey)
        with self._db.snapshot() as session:
            rows, next_cursor = fetch_page(session, query, ApiKey.id, limit, cursor)
            items = [KeyRead(**_fields(record_of(row))) for row in rows]
            return KeyPage(items=items, next_cursor=next_cursor, total=count_matches(session, query))

    def read(self, id_or_name: str) -> KeyDetail:
        """Return a key with what it uses.

        Raises:
            NotFound: There is no key of this id, and no unrevoked one of this name.
        """
        with self._db.snapshot() as session:
            row = find_key(session, id_or_name)
            if row is None:
                raise NotFound("There is no key with this id, and no unrevoked one with this name.")
            record, use = record_of(row), _use_of(session, row.id)
        applied = KeyLimitsRead(**asdict(self._shares.with_own(record.shares)))
        return KeyDetail(**_fields(record), applied_limits=applied, use=use)

    def create(self, body: KeyCreate, caller: Caller) -> KeyCreatedRead:
        """Create a key and return it; nothing can return it a second time.

        The first key of a node ends its openness to every process of the machine, so a request without a key, which
        may come from any of them, cannot create it.

        Raises:
            Forbidden: `first_key_by_command`: the caller has no key.
            Conflict: The name is taken, or there are too many keys.
        """
        if caller.key_id is None:
            detail = (
                "This node has no API key. Create the first one on its machine, with the scope admin: `foxhound keys "
                "create NAME --scope admin`."
            )
            raise Forbidden(detail, code=ErrorCode.FIRST_KEY_BY_COMMAND)
        days = body.expires_in_days
        expires_at = None if days is None else utc_now() + timedelta(days=days)
        scopes = {Scope(scope) for scope in body.scopes}
        with _refusals():
            new = create_key(self._db, body.name, scopes, expires_at=expires_at, shares=_shares(body.limits))
        assert new is not None  # noqa: S101 - for mypy: None only with `if_none`
        log.info("The key %s was created with the key %s.", new.id, caller.key_id)
        with self._db.snapshot() as session:
            record = record_of(session.get_one(ApiKey, new.id))
        return KeyCreatedRead(**_fields(record), key=new.key)

    def limit(self, id_or_name: str, limits: KeyLimits, caller: Caller) -> KeyDetail:
        """Replace the bounds of a key and return it.

        Raises:
            NotFound: There is no unrevoked key of this id or name.
        """
        with _refusals():
            record = limit_key(self._db, id_or_name, _shares(limits))
        log.info("The bounds of the key %s were changed with the key %s.", record.id, caller.key_id)
        return self.read(record.id)

    def revoke(self, id_or_name: str, caller: Caller) -> None:
        """Revoke a key.

        Raises:
            NotFound: There is no unrevoked key of this id or name.
            Conflict: `last_admin_key`: nobody could undo it over HTTP.
        """
        with _refusals():
            record = revoke_key(self._db, id_or_name, keeps_admin=True)
        log.info("The key %s was revoked with the key %s.", record.id, caller.key_id)


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn the refusals of keys into errors of the API."""
    try:
        yield
    except NoSuchKey:
        raise NotFound("There is no unrevoked key with this id or name.") from None
    except KeyNameTaken as refused:
        raise Conflict(str(refused), code=ErrorCode.KEY_NAME_TAKEN) from None
    except TooManyKeys as refused:
        raise Conflict(str(refused), code=ErrorCode.TOO_MANY_KEYS) from None
    except LastAdminKey as refused:
        detail = f"{refused} Or revoke it on the node's machine: `foxhound keys revoke NAME`."
        raise Conflict(detail, code=ErrorCode.LAST_ADMIN_KEY) from None


def _shares(limits: KeyLimits) -> Shares:
    return Shares(**limits.model_dump())


def _fields(record: KeyRecord) -> dict[str, Any]:
    limits = asdict(Shares().with_own(record.shares))
    return {**asdict(record), "state": record.state(utc_now()), "limits": KeyLimitsRead(**limits)}


def _use_of(session: Session, key_id: str) -> KeyUse:
    today = (Usage.caller == f"key:{key_id}") & (Usage.day == utc_now().date())
    steps = session.scalar(select(Usage.pixel_steps).where(today)) or 0
    return KeyUse(pixel_steps_today=max(0, steps), stored_bytes=stored_bytes(session, key_id))
