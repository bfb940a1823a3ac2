"""What a caller may have at once and in a minute."""

import pytest

from app.access.caller import LOCAL, Shares
from app.access.shares import RateBook, Running
from app.errors import RateLimited


def test_the_bounds_of_a_key_stand_before_those_of_the_node_and_unknown_ones_are_ignored() -> None:
    node = Shares(requests_per_minute=10, stored_mb=5)
    assert node.with_own(None) == node
    own = node.with_own({"requests_per_minute": 20, "concurrent_images": 3, "of_a_newer_release": 1})
    assert own == Shares(requests_per_minute=20, concurrent_images=3, stored_mb=5)
    assert own.given() == {"requests_per_minute": 20, "concurrent_images": 3, "stored_mb": 5}


def test_what_runs_is_counted_for_each_caller_and_frees_its_places_at_its_end() -> None:
    now = [100.0]
    running = Running(clock=lambda: now[0])
    with running.hold("a", 2, 3, "images"):
        now[0] += 7.5
        with (
            running.hold("b", 3, 3, "images"),
            running.hold("a", 1, 3, "images"),
            pytest.raises(RateLimited) as refused,
            running.hold("a", 1, 3, "images"),
        ):
            pass
        assert refused.value.retry_after_s == 5  # two run for 7.5 s, one for none
        with running.hold("a", 1, 3, "images"):
            pass
    with running.hold("a", 3, 3, "images"):
        pass


def test_a_failure_frees_its_place_and_without_a_bound_anything_runs() -> None:
    running = Running()
    for _ in range(3):
        with pytest.raises(ZeroDivisionError), running.hold("a", 1, 1, "requests"):
            _ = 1 / 0
    with running.hold("a", 10_000, None, "requests"), running.hold("a", 1, 1, "requests"):
        pass


def test_more_requests_than_a_minute_allows_are_refused_and_do_not_count() -> None:
    book = RateBook()
    caller = type(LOCAL)("key:1", "1", LOCAL.scopes, shares=Shares(requests_per_minute=3))
    other = type(LOCAL)("key:2", "2", LOCAL.scopes, shares=Shares(requests_per_minute=3))
    rates = [book.count(caller) for _ in range(3)]
    assert [rate.left for rate in rates if rate is not None] == [2, 1, 0]
    for _ in range(2):
        with pytest.raises(RateLimited) as refused:
            book.count(caller)
        assert 1 <= (refused.value.retry_after_s or 0) <= 60
        assert refused.value.headers["RateLimit-Policy"] == '"requests";q=3;w=60'
        assert refused.value.headers["RateLimit"].startswith('"requests";r=0;t=')
    assert book.count(other) is not None
    assert book.count(LOCAL) is None
