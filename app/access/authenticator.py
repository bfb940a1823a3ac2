"""Identifies the caller of each request by the API key that it has.

A process compares keys with a table of all usable keys, which it reads from the database: in the background once the
table is a second old, and before it answers once the table is two seconds old. So a key that one node revokes is
refused by every node within about two seconds, and a stream of wrong keys neither grows the process nor costs the
database more than ten small reads a second. Runs on the event loop; the database is read on a thread of its own, so
that a key never waits behind the transactions of other requests.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

from app.access.caller import ALL_SCOPES, ANONYMOUS_SCOPES, AccessPolicy, Caller, Scope, address_id
from app.access.keys import KEY, KeyTable, UsableKey, digest_of
from app.db.base import utc_now
from app.error_codes import ErrorCode
from app.errors import AppError, Unauthorized

log = logging.getLogger(__name__)

# Age of the table from which it is read again in the background, and up to which it counts, in seconds.
REFRESH_S = 1.0
MAX_AGE_S = 2.0
# Least time between the starts of two reads, in seconds: what bounds the cost of wrong keys.
MIN_INTERVAL_S = 0.1
# How long a request to a node without keys waits for a read before it is answered as the last read allows, in seconds.
_PATIENCE_S = 1.0
# Time until the day of a use is written again after a failure, in seconds.
_RETRY_USE_S = 60.0


class KeySource(Protocol):
    """The keys in the database; both methods are called on threads."""

    def read(self, now: datetime) -> KeyTable:
        """Return all keys that are usable at `now`."""

    def note_use(self, key_id: str, day: date) -> None:
        """Record the day of a use."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A table, and when its read began, in seconds of the clock."""

    table: KeyTable
    asked_at: float


class Authenticator:
    """Identifies callers; one for each API process."""

    def __init__(
        self,
        keys: KeySource,
        policy: AccessPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Begin without a table.

        Args:
            keys: The keys in the database.
            policy: Which requests need no key.
            clock: Seconds from any origin, for the age of the table.
            now: The time in UTC, for the expiry of keys.
        """
        self._keys = keys
        self._policy = policy
        self._clock = clock
        self._now = now
        self._threads = ThreadPoolExecutor(1, "keys")
        self._loaded: _Loaded | None = None
        self._loading: asyncio.Task[None] | None = None
        self._began_at = self._asked_at = float("-inf")
        # The day on which a key was used last, and from when on its write is tried again if it failed.
        self._used: dict[str, tuple[date, float]] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Read the table for the first time; an outage of the database is left to the first request."""
        with suppress(AppError):
            await self._read_since(self._clock())

    async def close(self) -> None:
        """Wait for reads and writes that run, and end the thread."""
        running = [*self._writing, *([self._loading] if self._loading else [])]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._threads.shutdown()

    async def identify(self, key: bytes | None, address: str) -> Caller:
        """Return the caller of a request.

        A key that is unknown, one that was revoked and one that has expired take the same path: neither is in the
        table, a newer table is read, neither is in that one, and the error is the same. The table is searched by the
        SHA-256 of the key, so the time of the search tells nothing about keys that exist. A text that does not have
        the form of a key is refused at once; the sender can see the form himself.

        Args:
            key: The key of the request; None: it has none.
            address: The client's address; empty if it is not known.

        Raises:
            Unauthorized: The key is not valid, or there is none and one is needed.
            DatabaseUnavailable: Keys are in use, and the database does not answer.
        """
        table = await self._recent()
        if not table.has_any and self._policy.is_loopback:
            return Caller(address_id(address), None, ALL_SCOPES, shares=self._policy.shares)
        if key is None:
            return self._anonymous(address)
        usable = await self._find(key, table)
        if usable is None:
            raise invalid_key()
        self._note_use(usable)
        reads_own = self._policy.reads_own and Scope.ADMIN not in usable.scopes
        shares = self._policy.shares.with_own(usable.shares)
        return Caller(f"key:{usable.id}", usable.id, usable.scopes, reads_own, shares)

    def _anonymous(self, address: str) -> Caller:
        if not self._policy.allows_anonymous:
            raise Unauthorized
        return Caller(address_id(address), None, ANONYMOUS_SCOPES, self._policy.reads_own, self._policy.shares)

    async def _find(self, key: bytes, table: KeyTable) -> UsableKey | None:
        if not KEY.fullmatch(key):
            return None
        digest = digest_of(key)
        found = self._usable(table, digest)
        if found is None:  # it may have been created since the table was read
            found = self._usable(await self._read_since(self._clock()), digest)
        return found

    def _usable(self, table: KeyTable, digest: str) -> UsableKey | None:
        found = table.usable.get(digest)
        has_expired = found is not None and found.expires_at is not None and found.expires_at <= self._now()
        return None if has_expired else found

    async def _recent(self) -> KeyTable:
        """Return a table that is at most `MAX_AGE_S` old.

        A node without keys is open, as long as its last read says so: there, an outage of the database must not stop
        requests that do not need it.
        """
        loaded, now = self._loaded, self._clock()
        if loaded is not None and now - loaded.asked_at <= REFRESH_S:
            return loaded.table
        reading = self._read()
        if loaded is not None and now - loaded.asked_at <= MAX_AGE_S:
            return loaded.table
        if loaded is None or loaded.table.has_any or not self._policy.is_loopback:
            return await self._read_since(now - MAX_AGE_S)
        with suppress(AppError, TimeoutError):
            async with asyncio.timeout(max(self._began_at + _PATIENCE_S - now, 0)):
                await asyncio.shield(reading)
        return loaded.table if self._loaded is None else self._loaded.table

    async def _read_since(self, moment: float) -> KeyTable:
        """Return a table whose read began at `moment` of the clock or later."""
        while self._loaded is None or self._loaded.asked_at < moment:
            await asyncio.shield(self._read())
        return self._loaded.table

    def _read(self) -> "asyncio.Task[None]":
        """Return the read that runs, or begin one."""
        if self._loading is None:
            self._began_at = self._clock()
            self._loading = asyncio.ensure_future(self._load())
            self._loading.add_done_callback(self._end_reading)
        return self._loading

    def _end_reading(self, task: "asyncio.Task[None]") -> None:
        self._loading = None
        if not task.cancelled() and (error := task.exception()) is not None:  # nobody may be waiting for it
            log.log(logging.DEBUG if isinstance(error, AppError) else logging.ERROR, "Reading keys failed: %r", error)

    async def _load(self) -> None:
        early_s = self._asked_at + MIN_INTERVAL_S - self._clock()
        if early_s > 0:
            await asyncio.sleep(early_s)
        self._asked_at = asked_at = self._clock()
        table = await asyncio.get_running_loop().run_in_executor(self._threads, self._keys.read, self._now())
        self._loaded = _Loaded(table, asked_at)

    def _note_use(self, key: UsableKey) -> None:
        """Begin to write the day of a use, once a day and key; the request does not wait for it."""
        today = self._now().date()
        noted_on, retry_at = self._used.get(key.id, (key.last_used_on, float("inf")))
        if noted_on == today and self._clock() < retry_at:
            return
        self._used[key.id] = today, float("inf")
        task = asyncio.ensure_future(self._write_use(key.id, today))
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    async def _write_use(self, key_id: str, day: date) -> None:
        try:
            await asyncio.to_thread(self._keys.note_use, key_id, day)
        except Exception as error:
            self._used[key_id] = day, self._clock() + _RETRY_USE_S
            log.warning("The day of a key's last use could not be written; a later request writes it.", exc_info=error)


def invalid_key() -> Unauthorized:
    """Return the error for a key that is not valid, whatever the reason."""
    detail = "The API key is not valid. It is unknown, expired or revoked, or was not sent as `Bearer KEY`."
    return Unauthorized(detail, code=ErrorCode.KEY_INVALID)


def presented_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the API key of a request; None if it has none.

    An `Authorization` of another scheme belongs to somebody else, such as a proxy with a login of its own, unless it
    has a key in it.

    Args:
        headers: Names in lower case, with their values.

    Raises:
        Unauthorized: The headers have different keys, or one without the word `Bearer`.
    """
    found = set()
    for name, value in headers:
        if name == b"x-api-key":
            found.add(value.strip())
        elif name == b"authorization" and value.strip():  # some clients send it empty where they have no key
            scheme, _, rest = value.strip().partition(b" ")
            if scheme.lower() == b"bearer":
                found.add(rest.strip())
            elif not rest or rest.strip().startswith(b"fxh_"):
                raise invalid_key()
    if len(found) > 1:
        raise invalid_key()
    return found.pop() if found else None
