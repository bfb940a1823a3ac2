"""Host names and origins as browsers send them: how they are read, compared and allowed.

Pure functions and values; imports nothing of the application and no framework. The settings check their lists with it
at the start, the API compares each request with them on the event loop.

**Source**: RFC 9110 section 7.2 (`Host`), RFC 6454 section 6 (the text form of an origin).
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

ANY = "*"
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,253}))(?::(\d{0,5}))?")
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.+)")
_DEFAULT_PORTS = {"http": 80, "https": 443}

_ORIGIN_RULE = "Write scheme://host or scheme://host:port, in ASCII and without a path, or * alone for every origin."
_HOST_RULE = (
    "Write a name or an address without scheme, port and path, *.example.org for all names under example.org, or * "
    "alone for every host."
)


@dataclass(frozen=True, slots=True)
class Host:
    """The host and the port of a URL.

    Attributes:
        name: In lower case, without a trailing dot; an address is in its canonical form, without brackets.
        port: TCP port; None if the text has none.
        is_address: Whether it is an IP address.
        is_loopback: Whether it is an IP address of the loopback interface.
    """

    name: str
    port: int | None = None
    is_address: bool = False
    is_loopback: bool = False

    def origin(self, scheme: str) -> str:
        """Return the origin of this host under a scheme, as browsers write it: without the scheme's own port."""
        name = f"[{self.name}]" if ":" in self.name else self.name
        port = "" if self.port in (None, _DEFAULT_PORTS.get(scheme)) else f":{self.port}"
        return f"{scheme}://{name}{port}"


def read_host(text: str) -> Host | None:
    """Return the host of a `Host` header, `name`, `name:port`, `[address]:port`; None if it has another form."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    inside, name, port = match.groups()
    number = int(port) if port else None
    address = _address(inside or name)
    if address is not None:
        is_loopback = (getattr(address, "ipv4_mapped", None) or address).is_loopback
        return Host(str(address), number, is_address=True, is_loopback=is_loopback)
    plain = "" if inside else name.lower().removesuffix(".")
    return Host(plain, number) if plain else None


def read_origin(text: str) -> str | None:
    """Return an origin as browsers write it; None for `null` and for whatever is no origin."""
    match = _ORIGIN.fullmatch(text)
    host = read_host(match[2]) if match else None
    return host.origin(match[1].lower()) if match and host else None


def read_origins(setting: str) -> frozenset[str]:
    """Return the origins of a list separated by commas, or `ANY` alone.

    Raises:
        ValueError: An entry is no origin; the message says which one, and what to write.
    """
    entries = _entries(setting)
    if entries == [ANY]:
        return frozenset(entries)
    return frozenset(_checked(read_origin(text), place, _ORIGIN_RULE) for place, text in enumerate(entries, 1))


def read_hosts(setting: str) -> frozenset[str]:
    """Return the names, addresses and patterns of a list separated by commas, or `ANY` alone.

    Raises:
        ValueError: An entry is no host; the message says which one, and what to write.
    """
    entries = _entries(setting)
    if entries == [ANY]:
        return frozenset(entries)
    return frozenset(_checked(_listed_host(text), place, _HOST_RULE) for place, text in enumerate(entries, 1))


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts under which a node answers.

    Attributes:
        names: Names in lower case, addresses, and patterns like `*.example.org`; `ANY` for every host.
        is_open: Whether any address and any name without a dot is allowed too.
    """

    names: frozenset[str]
    is_open: bool

    def allow(self, host: Host) -> bool:
        """Return whether the node answers under a host."""
        if host.is_loopback or ANY in self.names or host.name in self.names:
            return True
        if host.is_address or "." not in host.name:
            return self.is_open
        labels = host.name.split(".")
        return any(f"*.{'.'.join(labels[start:])}" in self.names for start in range(1, len(labels)))


def allowed_hosts(listen: str, listed: str, machine: str) -> AllowedHosts:
    """Return the hosts under which a node answers.

    Always `localhost` and the loopback addresses, the address that the node listens on, and what is listed. A node that
    is on the network also answers under any IP address, any name without a dot (Compose and Kubernetes name services
    so) and its machine's names. DNS rebinding needs a name that an attacker can point to the node, and all public
    names have a dot.

    Args:
        listen: The address or name that the node listens on.
        listed: Further hosts, separated by commas.
        machine: The machine's host name.
    """
    own = read_host(f"[{listen}]" if ":" in listen else listen) or Host(listen.lower())
    names = {"localhost", own.name} | read_hosts(listed)
    is_open = not own.is_loopback and own.name != "localhost"
    if is_open:
        names |= {machine.lower(), f"{machine.lower().partition('.')[0]}.local"}
    return AllowedHosts(frozenset(names), is_open)


def _entries(setting: str) -> list[str]:
    return [entry for text in setting.split(",") if (entry := text.strip())]


def _checked(value: str | None, place: int, rule: str) -> str:
    if value is None:
        raise ValueError(f"Entry {place} of the list is not valid. {rule}")
    return value


def _listed_host(text: str) -> str | None:
    bare = f"[{text}]" if _address(text) and ":" in text else text
    prefix = "*." if bare.startswith("*.") else ""
    host = read_host(bare.removeprefix(prefix))
    if host is None or host.port is not None or (prefix and host.is_address):
        return None
    return prefix + host.name


@lru_cache(maxsize=64)  # the `Host` of every request is looked up; few, because a client's text may be long
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
