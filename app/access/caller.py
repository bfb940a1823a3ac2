"""The sender of a request, how much he may use, and the policy by which requests without a key are accepted.

Imports nothing of the application. Everything is immutable; any thread may use it.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache


class Scope(StrEnum):
    """What a key allows; `admin` includes the others."""

    READ = "read"
    GENERATE = "generate"
    DATASETS = "datasets"
    TRAIN = "train"
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)
# What a request without a key may do where `FOXHOUND_ALLOW_ANONYMOUS` is set.
ANONYMOUS_SCOPES = ALL_SCOPES - {Scope.ADMIN}
WRITING_SCOPES = frozenset({Scope.GENERATE, Scope.DATASETS, Scope.TRAIN})


@dataclass(frozen=True, slots=True)
class Shares:
    """The bounds of one caller; None: no bound.

    Attributes:
        requests_per_minute: Requests in any minute on one node, >= 1.
        concurrent_requests: Requests that run at once on one node, >= 1.
        concurrent_images: Images of `/generate` that are drawn at once on one node, >= 1; jobs do not count.
        pixel_steps_per_day: Images x steps x width x height that are accepted in a day (UTC) over all nodes, >= 0.
        stored_mb: Megabytes of images and models that may be stored when new work is accepted, >= 0.
    """

    requests_per_minute: int | None = None
    concurrent_requests: int | None = None
    concurrent_images: int | None = None
    pixel_steps_per_day: int | None = None
    stored_mb: int | None = None

    def with_own(self, own: Mapping[str, int] | None) -> "Shares":
        """Return the shares of a key: its own bounds, and these where it has none.

        Args:
            own: Bounds by name. Names that this release does not know are ignored.
        """
        known = {field.name for field in fields(self)}
        return replace(self, **{name: value for name, value in (own or {}).items() if name in known})

    def given(self) -> dict[str, int]:
        """Return the bounds that there are, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


UNBOUNDED = Shares()


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request.

    Attributes:
        id: `key:` and the id of his API key, or `address:` and his IPv4 address or IPv6 /64 network. Requests with the
            same id share quotas and turns.
        key_id: The id of his API key; None: the request was accepted without one.
        scopes: What he may do.
        reads_own: Whether he sees only the objects that were created with the same `key_id`.
        shares: How much he may use.
    """

    id: str
    key_id: str | None
    scopes: frozenset[Scope]
    reads_own: bool = False
    shares: Shares = UNBOUNDED

    def may(self, scope: Scope) -> bool:
        """Return whether the caller has a scope, `admin` included."""
        return scope in self.scopes or Scope.ADMIN in self.scopes

    def sees(self, key_id: str | None) -> bool:
        """Return whether the caller sees an object that was created with this key."""
        return not self.reads_own or key_id == self.key_id


# The sender of what comes from no request: commands, benchmarks, tests of services.
LOCAL = Caller("local", None, ALL_SCOPES)


@dataclass(frozen=True, slots=True)
class AccessPolicy:
    """Which requests a node accepts without a key, and what a key sees.

    Attributes:
        is_loopback: Whether the node listens on this machine alone; then no key is needed until the first is created.
        allows_anonymous: Whether requests without a key are accepted, with every scope but `admin`.
        reads_own: Whether a key without the scope `admin` sees only its own objects.
        shares: How much a caller may use whose key does not say more or less.
    """

    is_loopback: bool = True
    allows_anonymous: bool = False
    reads_own: bool = False
    shares: Shares = UNBOUNDED

    @classmethod
    def of(cls, host: str, *, allows_anonymous: bool, reads_own: bool, shares: Shares = UNBOUNDED) -> "AccessPolicy":
        """Return the policy of a node that listens on `host`."""
        return cls(is_loopback(host), allows_anonymous, reads_own, shares)

    @property
    def needs_a_key(self) -> bool:
        """Whether a node without any key would accept no request, and must not start."""
        return not self.is_loopback and not self.allows_anonymous


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is reachable from this machine only.

    True for 127.0.0.0/8, `::1` and `localhost`; other names are not resolved, and count as reachable from elsewhere.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1_024)
def address_id(address: str) -> str:
    """Return the id of a caller without a key: his IPv4 address, or the /64 network of his IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return f"address:{address}"
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"address:{parsed.ipv4_mapped}"
        return f"address:{ipaddress.IPv6Network((parsed, 64), strict=False)}"
    return f"address:{parsed}"
