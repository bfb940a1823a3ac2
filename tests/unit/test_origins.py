"""Hosts and origins: what is read, what is equal, what is allowed."""

import pytest

from app.origins import ANY, AllowedHosts, Host, allowed_hosts, read_host, read_hosts, read_origin, read_origins

HOSTS = {
    "localhost": Host("localhost"),
    "LocalHost.": Host("localhost"),
    "localhost:8000": Host("localhost", 8000),
    "my_service:": Host("my_service"),
    "127.0.0.1:80": Host("127.0.0.1", 80, is_address=True, is_loopback=True),
    "[::1]:8000": Host("::1", 8000, is_address=True, is_loopback=True),
    "[0:0:0:0:0:0:0:1]": Host("::1", None, is_address=True, is_loopback=True),
    "10.0.0.5": Host("10.0.0.5", None, is_address=True),
}


@pytest.mark.parametrize(("text", "host"), HOSTS.items())
def test_a_host_is_read_in_one_form(text: str, host: Host) -> None:
    assert read_host(text) == host


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", ":80", "a b", "a/b", "user@localhost", "localhost:80:80", "localhost:x", "localhost:123456", "::1"),
        *("[localhost]", "[::1", "[]", "[::g]", "localhost, localhost", "lo\x00calhost", "bücher.example", "a" * 254),
    ],
)
def test_what_is_no_host_is_none(text: str) -> None:
    assert read_host(text) is None


def test_an_ipv4_address_in_ipv6_is_of_loopback_too() -> None:
    read = read_host("[::ffff:127.0.0.1]:80")
    assert read is not None
    assert (read.is_address, read.is_loopback, read.port) == (True, True, 80)


def test_equal_origins_are_written_alike() -> None:
    assert read_origin("HTTP://LocalHost:80") == read_origin("http://localhost") == "http://localhost"
    assert read_origin("https://localhost:443") == "https://localhost"
    assert read_origin("http://localhost:443") == "http://localhost:443"
    assert read_origin("http://[0::1]:5173") == "http://[::1]:5173"
    assert read_origin("chrome-extension://abcdefghijklmnop") == "chrome-extension://abcdefghijklmnop"


@pytest.mark.parametrize(
    "text", ["null", "", "localhost", "//localhost", "http://", "http://a/", "http://a b", "file:///"]
)
def test_what_is_no_origin_is_none(text: str) -> None:
    assert read_origin(text) is None


def test_lists_are_read_with_spaces_and_empty_entries() -> None:
    assert read_origins(" http://a:5173, ,https://B.example ,") == {"http://a:5173", "https://b.example"}
    assert read_hosts("A.example., *.B.example,10.0.0.1,::1,[fe80::1]") == {
        "a.example",
        "*.b.example",
        "10.0.0.1",
        "::1",
        "fe80::1",
    }
    assert read_origins("*") == read_hosts(" * ") == {ANY}
    assert read_origins("") == read_hosts("") == frozenset()


@pytest.mark.parametrize(
    "entry", ["app.example", "https://app.example/", "https://app.example/x", "null", "*", "*.a.b"]
)
def test_an_entry_that_is_no_origin_is_named_by_its_place(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^Entry 2 of the list is not valid\. Write scheme://host .*\.$"):
        read_origins(f"http://good.example,{entry}")


@pytest.mark.parametrize("entry", ["a.example:80", "http://a.example", "a/b", "*", "*a.example", "*.10.0.0.1", "a b"])
def test_an_entry_that_is_no_host_is_named_by_its_place(entry: str) -> None:
    with pytest.raises(ValueError, match=r"^Entry 2 of the list is not valid\. Write a name .*\.$"):
        read_hosts(f"good.example,{entry}")


def answers(hosts: AllowedHosts, *texts: str) -> list[bool]:
    read = [read_host(text) for text in texts]
    return [host is not None and hosts.allow(host) for host in read]


FOREIGN = ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.local", "box.evil.example")


@pytest.mark.parametrize("listen", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_a_node_on_loopback_answers_under_loopback_names_alone(listen: str) -> None:
    hosts = allowed_hosts(listen, "", "box")
    assert all(answers(hosts, "localhost:8000", "127.0.0.1", "[::1]:8000", "127.1.2.3"))
    assert not any(answers(hosts, *FOREIGN, "foxhound", "box", "box.local", "10.0.0.5", "0.0.0.0"))


@pytest.mark.parametrize("listen", ["0.0.0.0", "::", "10.0.0.5", "fox.example"])
def test_a_node_on_the_network_also_answers_under_names_that_nobody_else_can_point_to_it(listen: str) -> None:
    hosts = allowed_hosts(listen, "", "Box.lan.example")
    own = ("box.lan.example", "box.local", "foxhound:8000", "10.0.0.5", "[2001:db8::1]:80")
    assert all(answers(hosts, "localhost", "127.0.0.1", *own))
    assert not any(answers(hosts, *FOREIGN))
    assert answers(hosts, "fox.example") == [listen == "fox.example"]


def test_listed_names_are_allowed_besides() -> None:
    hosts = allowed_hosts("127.0.0.1", "fox.example,*.foxes.example,10.0.0.5", "box")
    assert all(answers(hosts, "localhost", "FOX.example.", "a.foxes.example", "a.b.foxes.example:80", "10.0.0.5"))
    assert not any(answers(hosts, "a.fox.example", "foxes.example", "evilfoxes.example", "10.0.0.6", *FOREIGN))
    assert all(answers(allowed_hosts("127.0.0.1", "*", "box"), *FOREIGN))
