"""The byte-bounded cache evicts the least recently used entries."""

from app.engine.cache import ByteBoundedCache


def make_cache(max_bytes: int) -> ByteBoundedCache[str, bytes]:
    return ByteBoundedCache(max_bytes, lambda _key, value: len(value))


def test_an_entry_is_found_until_it_is_evicted() -> None:
    cache = make_cache(4)
    cache.put("a", b"12")
    cache.put("b", b"12")
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (b"12", b"12", None)


def test_the_least_recently_used_entries_are_evicted() -> None:
    cache = make_cache(4)
    cache.put("a", b"12")
    cache.put("b", b"1")
    cache.put("c", b"1")
    cache.get("a")
    cache.put("d", b"12")
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "d"]


def test_an_entry_larger_than_the_cache_is_not_kept_and_leaves_room_for_others() -> None:
    cache = make_cache(4)
    cache.put("large", b"12345")
    assert cache.get("large") is None
    cache.put("small", b"1234")
    assert cache.get("small") == b"1234"
