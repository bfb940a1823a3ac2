"""API keys in the database: create, list, revoke, and the table that requests are compared with.

A key is `fxh_`, eight characters that lists show, and 192 random bits. The database has its SHA-256 only. A slow
password hash would gain nothing: nobody can try 2^192 keys, and it would cost every request 100 ms. Imports no HTTP.
Called by commands, and on a thread of the API process.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.access.caller import UNBOUNDED, Scope, Shares
from app.db.base import new_id, utc_now
from app.db.caller_tables import ApiKey
from app.db.session import Database

# Every API process holds all usable keys; so many take 6 MB, and 0.1 s to read after a change.
MAX_KEYS = 10_000
KEY = re.compile(rb"fxh_[A-Za-z0-9_-]{16,120}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SCOPES = {scope.value for scope in Scope}
_MARK = "fxh_"
_PREFIX_BYTES = 4
_SECRET_BYTES = 24


class KeyRefused(Exception):
    """A key cannot be created or revoked; the text says why, for a person."""


class KeyNameTaken(KeyRefused):
    """Another unrevoked key has the name."""


class TooManyKeys(KeyRefused):
    """There are as many unrevoked keys as are kept."""


class NoSuchKey(KeyRefused):
    """There is no unrevoked key of this id or name."""


class LastAdminKey(KeyRefused):
    """No other usable key would have the scope `admin`."""


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just created; the only place where the key itself is."""

    id: str
    name: str
    key: str
    scopes: list[str]


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What lists show of a key."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_on: date | None
    shares: dict[str, int] | None

    def state(self, now: datetime) -> str:
        """Return `revoked`, `expired` or `active`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"


@dataclass(frozen=True, slots=True)
class UsableKey:
    """A key that is neither revoked nor, when it was read, expired."""

    id: str
    scopes: frozenset[Scope]
    expires_at: datetime | None
    last_used_on: date | None
    shares: dict[str, int] | None = None


@dataclass(frozen=True, slots=True)
class KeyTable:
    """All usable keys, as one read of the database found them.

    Attributes:
        usable: By SHA-256 of the key, in hexadecimal.
        has_any: Whether there is any key, revoked and expired ones too: then requests need one.
    """

    usable: dict[str, UsableKey]
    has_any: bool


def digest_of(key: bytes) -> str:
    """Return the SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key).hexdigest()


def create_key(
    db: Database,
    name: str,
    scopes: Collection[Scope],
    *,
    expires_at: datetime | None = None,
    shares: Shares = UNBOUNDED,
    if_none: bool = False,
    hand_over: Callable[[NewKey], None] = lambda _: None,
) -> NewKey | None:
    """Create a key and return it; nothing can return it a second time.

    Args:
        db: The database.
        name: Its name, which no other unrevoked key has.
        scopes: At least one.
        expires_at: When it stops being valid; None: never.
        shares: Its bounds; those that are None follow the settings of each node.
        if_none: Whether to create nothing, and return None, if there is any key.
        hand_over: Called with the key before it is committed; if it raises, there is no key.

    Raises:
        KeyRefused: The name is taken or not of the form `NAME`, or there are too many keys.
    """
    if not NAME.fullmatch(name):
        raise KeyRefused("A name has 1 to 63 letters, digits, dots, hyphens and underscores, a letter or digit first.")
    prefix = _MARK + secrets.token_hex(_PREFIX_BYTES)
    key = f"{prefix}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    row = ApiKey(
        id=new_id(),
        name=name,
        prefix=prefix,
        key_sha256=digest_of(key.encode()),
        scopes=sorted(str(scope) for scope in scopes),
        expires_at=expires_at,
        shares=shares.given() or None,
    )
    new = NewKey(row.id, name, key, list(row.scopes))
    try:
        with db.transaction() as session:
            if if_none and has_any_key(session):
                return None
            _refuse_too_many(session)
            session.add(row)
            session.flush()
            hand_over(new)
    except IntegrityError:
        if if_none:  # another node has created its first key meanwhile
            return None
        raise KeyNameTaken("There is a key of this name. Revoke it first, or choose another name.") from None
    return new


def list_keys(db: Database) -> list[KeyRecord]:
    """Return all keys, oldest first."""
    columns = [getattr(ApiKey, name) for name in KeyRecord.__dataclass_fields__]
    with db.snapshot() as session:
        return [KeyRecord(*row) for row in session.execute(select(*columns).order_by(ApiKey.id))]


def revoke_key(db: Database, id_or_name: str, *, keeps_admin: bool = False) -> KeyRecord:
    """Revoke a key and return it as it is now; API processes refuse it within 5 s.

    Args:
        db: The database.
        id_or_name: Of the key.
        keeps_admin: Whether to refuse it if no other usable key has the scope `admin`.

    Raises:
        NoSuchKey: There is no unrevoked key of this id or name.
        LastAdminKey: It is the last, and `keeps_admin`.
    """
    with db.transaction() as session:
        row = _unrevoked(session, id_or_name)
        if keeps_admin and _is_last_admin(session, row):
            raise LastAdminKey("No other key has the scope admin. Create one first.")
        row.revoked_at = utc_now()
        return record_of(row)


def limit_key(db: Database, id_or_name: str, shares: Shares) -> KeyRecord:
    """Replace the bounds of a key and return it as it is now; API processes apply them within 5 s.

    Args:
        db: The database.
        id_or_name: Of the key.
        shares: All its bounds; those that are None follow the settings of each node.

    Raises:
        NoSuchKey: There is no unrevoked key of this id or name.
    """
    with db.transaction() as session:
        row = _unrevoked(session, id_or_name)
        row.shares = shares.given() or None
        row.num_changes += 1
        return record_of(row)


def has_any_key(session: Session) -> bool:
    """Return whether there is any key, revoked and expired ones too."""
    return session.scalar(select(ApiKey.id).limit(1)) is not None


def read_key_table(db: Database, now: datetime) -> KeyTable:
    """Return all usable keys.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    key = ApiKey
    columns = (key.key_sha256, key.id, key.scopes, key.expires_at, key.last_used_on, key.shares)
    usable = ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now)
    with db.snapshot() as session:
        found = {
            digest: UsableKey(key_id, _known(scopes), expires_at, last_used_on, shares)
            for digest, key_id, scopes, expires_at, last_used_on, shares in session.execute(
                select(*columns).where(usable)
            )
        }
        return KeyTable(found, bool(found) or has_any_key(session))


def note_use(db: Database, key_id: str, day: date) -> None:
    """Record the day of a key's last use; an earlier day than the recorded one changes nothing."""
    earlier = or_(ApiKey.last_used_on.is_(None), ApiKey.last_used_on < day)
    with db.transaction() as session:
        session.execute(update(ApiKey).where(ApiKey.id == key_id, earlier).values(last_used_on=day))


class KeyRows:
    """The keys of a database, as `Authenticator` uses them; one thread calls `read`."""

    def __init__(self, db: Database) -> None:
        """Use a database."""
        self._db = db
        self._known: tuple[Any, KeyTable] | None = None

    def read(self, now: datetime) -> KeyTable:
        """Return all usable keys; some may have expired since they were read.

        They are read again if a key was created, limited or revoked since. Commands change nothing else of a row but
        the day of its last use, and delete none, so these sums and the newest id show every change.

        Raises:
            DatabaseUnavailable: The database does not answer.
        """
        state = select(func.count(), func.count(ApiKey.revoked_at), func.sum(ApiKey.num_changes), func.max(ApiKey.id))
        with self._db.snapshot() as session:
            changes = tuple(session.execute(state).one())
        if self._known is None or self._known[0] != changes:
            self._known = changes, read_key_table(self._db, now)  # may be newer than `changes`, never older
        return self._known[1]

    def note_use(self, key_id: str, day: date) -> None:
        """Record the day of a use; see `note_use`."""
        note_use(self._db, key_id, day)


def find_key(session: Session, id_or_name: str) -> ApiKey | None:
    """Return the key of an id, or else the unrevoked key of a name; None if there is neither."""
    of_name = select(ApiKey).where(ApiKey.name == id_or_name, ApiKey.revoked_at.is_(None))
    return session.get(ApiKey, id_or_name) or session.scalar(of_name)


def _unrevoked(session: Session, id_or_name: str) -> ApiKey:
    row = find_key(session, id_or_name)
    if row is None or row.revoked_at is not None:
        raise NoSuchKey("There is no unrevoked key of this name. `foxhound keys list` lists all keys.")
    return row


def _is_last_admin(session: Session, row: ApiKey) -> bool:
    """Return whether a key is usable for `admin`, and no other one is; other transactions wait that ask the same."""
    now = utc_now()
    usable = ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now)
    rows = session.execute(select(ApiKey.id, ApiKey.scopes).where(usable).order_by(ApiKey.id).with_for_update())
    admins = {key_id for key_id, scopes in rows if Scope.ADMIN in scopes}
    return admins == {row.id}


def record_of(row: ApiKey) -> KeyRecord:
    """Return what lists show of a key's row."""
    return KeyRecord(**{name: getattr(row, name) for name in KeyRecord.__dataclass_fields__})


def _known(scopes: Collection[str]) -> frozenset[Scope]:
    """Return the scopes that this release has; a newer one may have written others."""
    return frozenset(Scope(scope) for scope in scopes if scope in _SCOPES)


def _refuse_too_many(session: Session) -> None:
    unrevoked = select(func.count()).select_from(ApiKey).where(ApiKey.revoked_at.is_(None))
    if (session.scalar(unrevoked) or 0) >= MAX_KEYS:
        raise TooManyKeys(f"There are {MAX_KEYS} unrevoked keys, the most that are kept. Revoke some first.")
