"""Which addresses reach this machine alone, and who shares a quota without a key."""

import pytest

from app.access.caller import LOCAL, AccessPolicy, Caller, Scope, address_id, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "[::1]", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    assert not AccessPolicy.of(host, allows_anonymous=False, reads_own=False).needs_a_key


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.4", "10.0.0.1", "example.com", "127.0.0.1.example"])
def test_every_other_address_needs_a_key_unless_anybody_is_let_in(host: str) -> None:
    assert AccessPolicy.of(host, allows_anonymous=False, reads_own=False).needs_a_key
    assert not AccessPolicy.of(host, allows_anonymous=True, reads_own=False).needs_a_key


def test_admin_may_everything_and_nobody_else_what_he_lacks() -> None:
    admin = Caller("key:1", "1", frozenset({Scope.ADMIN}))
    reader = Caller("key:2", "2", frozenset({Scope.READ}))
    assert all(map(admin.may, Scope))
    assert [scope for scope in Scope if reader.may(scope)] == [Scope.READ]


def test_a_caller_sees_all_objects_or_those_of_his_key() -> None:
    mine = Caller("key:1", "1", frozenset({Scope.READ}), reads_own=True)
    nobody = Caller("address:::1", None, frozenset({Scope.READ}), reads_own=True)
    assert [mine.sees(key) for key in ("1", "2", None)] == [True, False, False]
    assert [nobody.sees(key) for key in ("1", None)] == [False, True]
    assert LOCAL.sees("1")


def test_an_address_is_an_ipv4_address_or_an_ipv6_network() -> None:
    assert address_id("192.0.2.7") == address_id("::ffff:192.0.2.7") == "address:192.0.2.7"
    assert address_id("2001:db8::1") == address_id("2001:db8::2") == "address:2001:db8::/64"
    assert address_id("") == "address:"
