"""The pixel-steps of a day and the stored bytes of a key, on both databases."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.access.caller import ALL_SCOPES, Caller, Shares
from app.access.quotas import charge, give_back, refuse_when_stored_full, stored_bytes
from app.db.base import new_id
from app.db.caller_tables import Usage
from app.db.models import Generation, Image
from app.db.session import Database
from app.errors import QuotaExceeded

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def caller(name: str = "1", **shares: int) -> Caller:
    return Caller(f"key:{name}", name, ALL_SCOPES, shares=Shares(**shares))


def used(db: Database) -> dict[tuple[str, str], int]:
    with db.snapshot() as session:
        return {(row.caller, f"{row.day:%m-%d}"): row.pixel_steps for row in session.scalars(select(Usage))}


def store(db: Database, key_id: str | None, num_bytes: int) -> None:
    with db.transaction() as session:
        row = Generation(
            id=new_id(), key_id=key_id, pack="p", pack_revision="1", parameters={}, warnings=[], timings={}
        )
        session.add(row)
        session.flush()
        session.add(
            Image(
                id=new_id(), path=new_id(), format="png", width=1, height=1, num_bytes=num_bytes, sha256="", lineage={},
                generation_id=row.id, position=0,
            )
        )  # fmt: skip


def test_a_day_is_charged_up_to_its_quota_and_the_next_begins_anew(db: Database) -> None:
    mine = caller(pixel_steps_per_day=100)
    with db.transaction() as session:
        assert [charge(session, mine, 60, now=NOON), charge(session, mine, 40, now=NOON)] == [60, 40]
    with pytest.raises(QuotaExceeded) as refused, db.transaction() as session:
        charge(session, mine, 1, now=NOON)
    assert refused.value.retry_after_s == 12 * 3600
    assert refused.value.headers["RateLimit"] == '"pixel-steps";r=0;t=43200'
    with db.transaction() as session:
        charge(session, mine, 5, now=NOON + timedelta(days=1))
        give_back(session, mine.id, NOON.date(), 30)
        charge(session, mine, 25, now=NOON)
    assert used(db) == {("key:1", "05-01"): 95, ("key:1", "05-02"): 5}


def test_more_than_any_day_has_says_so_and_has_no_time_to_wait(db: Database) -> None:
    with pytest.raises(QuotaExceeded, match="No day has so many") as refused, db.transaction() as session:
        charge(session, caller(pixel_steps_per_day=100), 101, now=NOON)
    assert refused.value.retry_after_s is None


def test_nothing_is_written_without_a_quota_and_old_days_go(db: Database) -> None:
    with db.transaction() as session:
        assert charge(session, caller(), 10**15, now=NOON) == 0
    assert used(db) == {}
    for days in (0, 31, 32):
        with db.transaction() as session:
            charge(session, caller(pixel_steps_per_day=9), 1, now=NOON + timedelta(days=days))
    assert [day for _, day in used(db)] == ["06-01", "06-02"]


def test_requests_at_once_never_exceed_the_quota_together(db: Database) -> None:
    mine = caller(pixel_steps_per_day=100)

    def attempt(_: int) -> bool:
        try:
            with db.transaction() as session:
                charge(session, mine, 30, now=NOON)
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        accepted = list(threads.map(attempt, range(16)))
    assert sum(accepted) == 3
    assert used(db) == {("key:1", "05-01"): 90}


def test_stored_bytes_are_those_of_the_key_and_refuse_new_work(db: Database) -> None:
    store(db, "1", 700_000)
    store(db, "1", 300_000)
    store(db, None, 5)
    with db.snapshot() as session:
        assert [stored_bytes(session, key) for key in ("1", "2", None)] == [1_000_000, 0, 5]
        refuse_when_stored_full(session, caller("2", stored_mb=1))
        refuse_when_stored_full(session, caller("1", stored_mb=2))
        with pytest.raises(QuotaExceeded, match="Delete generations, datasets or models"):
            refuse_when_stored_full(session, caller("1", stored_mb=1))
