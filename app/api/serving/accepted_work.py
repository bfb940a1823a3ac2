"""Slows down addresses whose accepted requests occupy Python's interpreter, while other addresses are being served.

The text of a large recipe is parsed and checked in pure Python: a tenth of a second for 2 MB, during which every other
request is slower. A client that sends one after the other pays for that time by waiting, as in a `RefusalBook`, but
only while requests of other addresses arrive: alone on the node, it is as fast as ever. Imports no application. Runs on
the event loop.
"""

import math
import time
from collections.abc import Callable

from app.api.serving.refusals import RefusalBook

# An address counts as present for this long after each of its requests, in seconds.
PRESENT_S = 1.0

# Key of a request's state: whether the time that it takes is charged although it is accepted.
IS_CHARGED = "is_charged"


class AcceptedWorkBook(RefusalBook):
    """The debts of addresses for accepted work; they are paid while another address is present."""

    def __init__(self, share: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without debts; the arguments are those of `RefusalBook`."""
        super().__init__(share, clock=clock)
        self._clock = clock
        # The last request's address and time, and those of the last request from any other address.
        self._last = self._other = ("", -math.inf)

    def note(self, address: str) -> None:
        """Record that a request has arrived."""
        if address != self._last[0]:
            self._other = self._last
        self._last = (address, self._clock())

    def wait_s(self, address: str) -> float:
        """Return the seconds until an address owes no more than the burst; 0 while it is alone."""
        return super().wait_s(address) if self._has_company(address) else 0.0

    def _has_company(self, address: str) -> bool:
        _, seen_s = self._other if self._last[0] == address else self._last
        return self._clock() - seen_s < PRESENT_S
