"""Keys in the database: stored as a hash alone, named once, revoked for good."""

import asyncio
import re
from datetime import timedelta

import pytest
from sqlalchemy import func, insert, select, text

from app.access import keys
from app.access.authenticator import Authenticator
from app.access.caller import AccessPolicy, Scope
from app.access.keys import KeyRefused, KeyRows, create_key, digest_of, list_keys, note_use, read_key_table, revoke_key
from app.db.base import utc_now
from app.db.caller_tables import ApiKey
from app.db.session import Database
from app.errors import Unauthorized

READ = [Scope.READ]


def created(db: Database, name: str = "alice", **more) -> keys.NewKey:
    new = create_key(db, name, more.pop("scopes", READ), **more)
    assert new is not None
    return new


def usable(db: Database) -> set[str]:
    return {key.id for key in read_key_table(db, utc_now()).usable.values()}


def test_a_key_has_192_random_bits_behind_a_prefix_that_lists_show(db: Database) -> None:
    first, second = created(db), created(db, "bob")
    for new in (first, second):
        assert re.fullmatch(r"fxh_[0-9a-f]{8}_[A-Za-z0-9_-]{32}", new.key)
        assert keys.KEY.fullmatch(new.key.encode())
    assert first.key[:12] != second.key[:12]
    assert [record.prefix for record in list_keys(db)] == [first.key[:12], second.key[:12]]


def test_the_database_has_the_hash_and_never_the_key(db: Database) -> None:
    new = created(db)
    with db.snapshot() as session:
        row = repr(session.execute(text("SELECT * FROM api_keys")).one())
    assert digest_of(new.key.encode()) in row
    assert new.key not in row
    assert new.key[13:] not in row


def test_a_name_is_taken_until_its_key_is_revoked(db: Database) -> None:
    first = created(db)
    with pytest.raises(KeyRefused, match="of this name"):
        create_key(db, "alice", READ)
    assert revoke_key(db, "alice").id == first.id
    second = created(db)
    assert usable(db) == {second.id}
    assert [record.state(utc_now()) for record in list_keys(db)] == ["revoked", "active"]
    revoke_key(db, "alice")
    with pytest.raises(KeyRefused, match="no unrevoked key"):
        revoke_key(db, "alice")


@pytest.mark.parametrize("name", ["", "-a", "a b", "é", "a" * 64, "a\n"])
def test_a_name_is_a_word(db: Database, name: str) -> None:
    with pytest.raises(KeyRefused, match="1 to 63"):
        create_key(db, name, READ)


def test_revoked_and_expired_keys_are_not_usable_and_still_count(db: Database) -> None:
    assert not read_key_table(db, utc_now()).has_any
    created(db, "short", expires_at=utc_now() + timedelta(hours=1))
    created(db, "gone")
    revoke_key(db, "gone")
    later = read_key_table(db, utc_now() + timedelta(hours=2))
    assert (later.usable, later.has_any) == ({}, True)
    assert [record.state(utc_now() + timedelta(hours=2)) for record in list_keys(db)] == ["expired", "revoked"]


def test_a_first_key_is_created_once(db: Database) -> None:
    assert create_key(db, "first", READ, if_none=True) is not None
    assert create_key(db, "other", READ, if_none=True) is None
    revoke_key(db, "first")
    assert create_key(db, "first", READ, if_none=True) is None


def test_a_key_that_cannot_be_handed_over_does_not_exist(db: Database) -> None:
    def fail(_: object) -> None:
        raise OSError(28, "no room")

    with pytest.raises(OSError, match="no room"):
        create_key(db, "alice", READ, hand_over=fail)
    assert not read_key_table(db, utc_now()).has_any


def test_the_number_of_keys_is_bounded(db: Database) -> None:
    rows = [
        {"id": f"{number}", "name": f"n{number}", "prefix": "fxh_", "key_sha256": f"{number}", "scopes": []}
        for number in range(keys.MAX_KEYS)
    ]
    with db.transaction() as session:
        session.execute(insert(ApiKey), [{**row, "created_at": utc_now()} for row in rows])
    with pytest.raises(KeyRefused, match="Revoke some"):
        create_key(db, "one-more", READ)
    revoke_key(db, "n5")
    created(db, "one-more")


def test_the_last_use_is_a_day_that_only_grows(db: Database) -> None:
    new, today = created(db), utc_now().date()
    for day in (today, today - timedelta(days=1)):
        note_use(db, new.id, day)
    assert [record.last_used_on for record in list_keys(db)] == [today]


def test_a_scope_of_a_later_release_is_left_out(db: Database) -> None:
    new = created(db)
    with db.transaction() as session:
        session.get_one(ApiKey, new.id).scopes = ["read", "fly"]
    [key] = read_key_table(db, utc_now()).usable.values()
    assert key.scopes == {Scope.READ}
    with db.snapshot() as session:
        assert session.scalar(select(func.count()).select_from(ApiKey)) == 1


def test_a_key_revoked_by_one_process_is_refused_by_all_within_five_seconds(db: Database, database_url: str) -> None:
    """Two processes, each with its own connection and table; their clocks are the test's."""
    new, seconds = created(db), 0.0
    other = Database(database_url)

    async def scene() -> list[str]:
        nonlocal seconds
        policy = AccessPolicy(is_loopback=False)
        processes = [Authenticator(KeyRows(one), policy, clock=lambda: seconds) for one in (db, other)]
        codes = []
        for step_s in (0.0, 1.9, 3.1):  # the last is 5 s after the revocation
            seconds += step_s
            codes += [await code_of(process, new.key) for process in processes]
            if step_s == 0.0:
                await asyncio.to_thread(revoke_key, db, "alice")
        for process in processes:
            await process.close()
        return codes

    codes = asyncio.run(scene())
    other.close()
    assert codes[:2] == ["", ""]
    assert codes[4:] == ["key_invalid", "key_invalid"]


async def code_of(authenticator: Authenticator, key: str) -> str:
    try:
        await authenticator.identify(key.encode(), "")
    except Unauthorized as error:
        return error.code
    return ""


def test_the_table_is_read_again_after_a_change_alone(db: Database) -> None:
    rows = KeyRows(db)
    tables = [rows.read(utc_now())]
    for change in (lambda: created(db), lambda: created(db, "bob"), lambda: revoke_key(db, "bob")):
        change()
        tables.append(rows.read(utc_now()))
        assert rows.read(utc_now()) is tables[-1]
    assert [len(table.usable) for table in tables] == [0, 1, 2, 1]
