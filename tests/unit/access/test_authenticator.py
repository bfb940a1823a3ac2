"""Who a request is from, how old the answer may be, and what a stream of wrong keys costs."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from app.access.authenticator import MAX_AGE_S, MIN_INTERVAL_S, REFRESH_S, Authenticator, presented_key
from app.access.caller import ALL_SCOPES, ANONYMOUS_SCOPES, AccessPolicy, Scope
from app.access.keys import KeyTable, UsableKey, digest_of
from app.errors import DatabaseUnavailable, Unauthorized
from testing.waiting import PATIENCE_S

KEY, OTHER, WRONG = (f"fxh_{word * 8}_{'x' * 32}".encode() for word in "abc")
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
LOOPBACK, PUBLIC = AccessPolicy(), AccessPolicy(is_loopback=False)


class FakeKeys:
    """Keys in memory.

    Attributes:
        table: What the next read returns.
        fault: Raised by both methods where it is set.
        reads: The number of reads.
        uses: What was noted.
        gate: Reads wait while it is cleared.
        begun: Set once a read has taken the table that it returns.
    """

    def __init__(self) -> None:
        self.table = KeyTable({}, has_any=False)
        self.fault: Exception | None = None
        self.reads = 0
        self.uses: list[tuple[str, date]] = []
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def add(self, key: bytes, key_id: str, *scopes: Scope, **more: Any) -> None:
        made = UsableKey(key_id, frozenset(scopes), more.get("expires_at"), more.get("last_used_on"))
        self.table = KeyTable({**self.table.usable, digest_of(key): made}, has_any=True)

    def revoke_all(self) -> None:
        self.table = KeyTable({}, has_any=True)

    def read(self, now: datetime) -> KeyTable:
        self.reads += 1
        table = self.table
        self.begun.set()
        self.gate.wait(PATIENCE_S)
        if self.fault is not None:
            raise self.fault
        return table

    def note_use(self, key_id: str, day: date) -> None:
        if self.fault is not None:
            raise self.fault
        self.uses.append((key_id, day))


class World:
    """An authenticator with clocks that a test sets."""

    def __init__(self, policy: AccessPolicy) -> None:
        self.keys = FakeKeys()
        self.seconds = 100.0
        self.now = START
        self.authenticator = Authenticator(self.keys, policy, clock=lambda: self.seconds, now=lambda: self.now)

    async def code(self, key: bytes | None) -> str:
        """Return the code of the refusal; empty if there is none."""
        try:
            await self.authenticator.identify(key, "192.0.2.1")
        except (Unauthorized, DatabaseUnavailable) as error:
            return error.code
        return ""

    async def settle(self) -> None:
        """Wait for reads and writes in the background."""
        running = [*self.authenticator._writing, self.authenticator._loading]
        await asyncio.gather(*filter(None, running), return_exceptions=True)


def play(policy: AccessPolicy, scene: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        world = World(policy)
        try:
            await asyncio.wait_for(scene(world), PATIENCE_S)
        finally:
            world.keys.gate.set()
            await world.authenticator.close()

    asyncio.run(run())


def test_a_node_on_loopback_is_open_until_there_is_a_key() -> None:
    async def scene(world: World) -> None:
        caller = await world.authenticator.identify(None, "127.0.0.1")
        assert (caller.id, caller.key_id, caller.scopes) == ("address:127.0.0.1", None, ALL_SCOPES)
        assert await world.code(WRONG) == ""
        world.keys.add(KEY, "1", Scope.READ)
        world.seconds += MAX_AGE_S + 0.01
        assert await world.code(None) == "key_required"
        world.keys.revoke_all()
        world.seconds += MAX_AGE_S + 0.01
        assert await world.code(None) == "key_required"
        assert await world.code(KEY) == "key_invalid"

    play(LOOPBACK, scene)


def test_a_node_that_others_reach_is_never_open() -> None:
    async def scene(world: World) -> None:
        assert await world.code(None) == "key_required"
        assert await world.code(KEY) == "key_invalid"

    play(PUBLIC, scene)


@pytest.mark.parametrize("has_keys", [False, True])
def test_anybody_may_all_but_admin_where_that_is_set_and_wrong_keys_are_refused(has_keys: bool) -> None:
    async def scene(world: World) -> None:
        if has_keys:
            world.keys.add(KEY, "1", Scope.ADMIN)
        caller = await world.authenticator.identify(None, "192.0.2.1")
        assert (caller.id, caller.scopes) == ("address:192.0.2.1", ANONYMOUS_SCOPES)
        assert await world.code(WRONG) == "key_invalid"

    play(AccessPolicy(is_loopback=False, allows_anonymous=True), scene)


def test_a_key_identifies_its_caller_and_admin_sees_all() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        world.keys.add(OTHER, "2", Scope.ADMIN)
        reader, admin = [await world.authenticator.identify(key, "") for key in (KEY, OTHER)]
        assert (reader.id, reader.key_id, reader.reads_own) == ("key:1", "1", True)
        assert reader.scopes == {Scope.READ}
        assert (admin.id, admin.reads_own) == ("key:2", False)

    play(AccessPolicy(is_loopback=False, reads_own=True), scene)


def test_a_revoked_key_is_refused_once_the_table_is_two_seconds_old() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        assert await world.code(KEY) == ""
        world.keys.revoke_all()
        world.seconds += MAX_AGE_S + 0.01
        assert await world.code(KEY) == "key_invalid"

    play(PUBLIC, scene)


def test_a_table_of_a_second_is_renewed_in_the_background() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        assert await world.code(KEY) == ""
        world.keys.revoke_all()
        world.keys.gate.clear()
        world.seconds += REFRESH_S + 0.01
        assert await world.code(KEY) == ""  # waits for nothing
        world.keys.gate.set()
        await world.settle()
        assert await world.code(KEY) == "key_invalid"

    play(PUBLIC, scene)


def test_a_read_that_began_too_early_does_not_count_for_a_new_key() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        assert await world.code(KEY) == ""
        world.keys.gate.clear()
        world.keys.begun.clear()
        world.seconds += REFRESH_S + 0.01
        assert await world.code(KEY) == ""  # begins a read of the old table
        await asyncio.to_thread(world.keys.begun.wait, PATIENCE_S)
        world.keys.add(OTHER, "2", Scope.READ)
        world.seconds += 0.5
        waiting = asyncio.ensure_future(world.code(OTHER))
        await asyncio.sleep(0.01)
        world.keys.gate.set()
        assert await waiting == ""

    play(PUBLIC, scene)


def test_a_new_key_is_accepted_at_once() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        assert await world.code(OTHER) == "key_invalid"
        world.keys.add(OTHER, "2", Scope.READ)
        world.seconds += 0.2
        assert await world.code(OTHER) == ""

    play(PUBLIC, scene)


def test_unknown_revoked_and_expired_keys_take_the_same_path() -> None:
    """Each costs one read, whose table has none of them, and gets the same words."""

    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ, expires_at=START)
        world.keys.add(OTHER, "2", Scope.READ)
        await world.authenticator.start()
        told = []
        for key in (KEY, WRONG):
            world.seconds += MIN_INTERVAL_S + 0.01
            reads = world.keys.reads
            with pytest.raises(Unauthorized) as refusal:
                await world.authenticator.identify(key, "")
            told.append((world.keys.reads - reads, refusal.value.detail, refusal.value.code))
        assert told[0] == told[1]
        assert told[0][0] == 1

    play(PUBLIC, scene)


def test_many_wrong_keys_share_few_reads_and_leave_nothing_behind() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        await world.authenticator.start()
        wrong = [f"fxh_{number:08x}_{'y' * 32}".encode() for number in range(500)]
        codes = await asyncio.gather(*(world.code(key) for key in wrong))
        assert set(codes) == {"key_invalid"}
        assert world.keys.reads <= 3
        assert await world.code(KEY) == ""
        assert len(world.authenticator._used) == 1

    play(PUBLIC, scene)


@pytest.mark.parametrize(
    "key", [b"", b"x", "fxh_ä".encode(), b"fxh_" + b"\xff" * 40, b"fxh_" + b"a" * 300_000, KEY + b"\n", b" " + KEY]
)
def test_what_is_no_key_is_refused_without_a_read(key: bytes) -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        await world.authenticator.start()
        assert await world.code(key) == "key_invalid"
        assert world.keys.reads == 1

    play(PUBLIC, scene)


def test_an_outage_is_not_told_as_a_wrong_key() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        assert await world.code(KEY) == ""
        world.keys.fault = DatabaseUnavailable()
        world.seconds += 0.5
        assert await world.code(KEY) == ""  # the table is still young
        assert await world.code(WRONG) == "database_unavailable"
        world.seconds += MAX_AGE_S + 0.01
        for key in (KEY, WRONG, None):
            assert await world.code(key) == "database_unavailable"
        world.keys.fault = None
        world.seconds += 1
        assert await world.code(KEY) == ""

    play(PUBLIC, scene)


def test_an_outage_does_not_close_a_node_that_has_no_keys() -> None:
    async def scene(world: World) -> None:
        assert await world.code(None) == ""
        world.keys.fault = DatabaseUnavailable()
        world.seconds += 60
        assert await world.code(None) == ""

    play(LOOPBACK, scene)


def test_a_node_that_has_never_reached_its_database_lets_nobody_in() -> None:
    async def scene(world: World) -> None:
        world.keys.fault = DatabaseUnavailable()
        await world.authenticator.start()
        assert await world.code(None) == "database_unavailable"

    play(LOOPBACK, scene)


def test_the_day_of_a_use_is_written_once_a_day_and_key() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        world.keys.add(OTHER, "2", Scope.READ, last_used_on=START.date())
        for _ in range(3):
            for key in (KEY, OTHER):
                assert await world.code(key) == ""
            await world.settle()
        assert world.keys.uses == [("1", START.date())]
        world.now += timedelta(days=1)
        assert await world.code(KEY) == ""
        await world.settle()
        assert world.keys.uses[1:] == [("1", date(2026, 5, 2))]

    play(PUBLIC, scene)


def test_a_use_that_could_not_be_written_is_written_a_minute_later() -> None:
    async def scene(world: World) -> None:
        world.keys.add(KEY, "1", Scope.READ)
        await world.authenticator.start()
        world.keys.fault = DatabaseUnavailable()
        assert await world.code(KEY) == ""
        await world.settle()
        world.keys.fault = None
        assert await world.code(KEY) == ""
        await world.settle()
        assert world.keys.uses == []
        world.seconds += 61
        assert await world.code(KEY) == ""
        await world.settle()
        assert world.keys.uses == [("1", START.date())]

    play(PUBLIC, scene)


def headers(*pairs: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs]


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ([], None),
        ([("authorization", "Bearer fxh_a")], b"fxh_a"),
        ([("authorization", "bearer   fxh_a ")], b"fxh_a"),
        ([("x-api-key", " fxh_a ")], b"fxh_a"),
        ([("x-api-key", "fxh_a"), ("authorization", "Bearer fxh_a")], b"fxh_a"),
        ([("x-api-key", "fxh_a"), ("authorization", "Basic dXNlcjpwYXNz")], b"fxh_a"),
        ([("authorization", "Basic dXNlcjpwYXNz")], None),  # of a proxy with a login of its own
        ([("x-api-key", "")], b""),
        ([("authorization", "Bearer")], b""),
        ([("authorization", "")], None),  # Open WebUI, where it has no key
        ([("x-api-key", "\u00e9")], b"\xe9"),
    ],
)
def test_where_a_key_is_looked_for(sent: list[tuple[str, str]], found: bytes | None) -> None:
    assert presented_key(headers(*sent)) == found


@pytest.mark.parametrize(
    "sent",
    [
        [("authorization", "fxh_a")],
        [("authorization", "ApiKey fxh_a")],
        [("authorization", "Bearer fxh_a"), ("x-api-key", "fxh_b")],
        [("x-api-key", "fxh_a"), ("x-api-key", "fxh_b")],
    ],
)
def test_a_key_in_a_wrong_form_or_two_keys_are_refused(sent: list[tuple[str, str]]) -> None:
    with pytest.raises(Unauthorized) as refusal:
        presented_key(headers(*sent))
    assert refusal.value.code == "key_invalid"
