"""A least-recently-used cache that is bounded by bytes.

Imports no torch and no model. Not thread-safe: each cache belongs to the device thread.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteBoundedCache(Generic[K, V]):
    """Keeps the entries that were used last, up to a number of bytes."""

    def __init__(self, max_bytes: int, num_bytes: Callable[[K, V], int]) -> None:
        """Start empty.

        Args:
            max_bytes: Bytes of all entries together, >= 0.
            num_bytes: Bytes that an entry takes, >= 0; always the same for the same entry.
        """
        self._entries: OrderedDict[K, V] = OrderedDict()
        self._free_bytes = max_bytes
        self._num_bytes = num_bytes

    def get(self, key: K) -> V | None:
        """Return an entry and mark it as the one used last; None where there is none."""
        if key not in self._entries:
            return None
        self._entries.move_to_end(key)
        return self._entries[key]

    def put(self, key: K, value: V) -> None:
        """Add an entry under a new key, and evict the entries that were unused the longest until the rest fits.

        An entry larger than the cache evicts all others and is not kept itself.
        """
        self._entries[key] = value
        self._free_bytes -= self._num_bytes(key, value)
        while self._free_bytes < 0:
            self._free_bytes += self._num_bytes(*self._entries.popitem(last=False))
