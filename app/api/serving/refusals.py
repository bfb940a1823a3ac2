"""Slows down addresses whose requests cost the node time and are refused.

A refusal is cheap for the client and not always for the node: a body of megabytes is read and counted before it is
refused, and one client can send hundreds a second. A `RefusalBook` adds up what the refused requests of an address
cost; an address that owes more than a short burst is served one request at a time, each after its debt has been paid
by waiting. Imports no application. Runs on the event loop.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

# Seconds of refused work that an address may cause before its requests wait: a mistaken upload or two.
BURST_S = 0.25
# A request waits at most this long, in seconds; then it is refused unread.
MAX_WAIT_S = 10.0
# A request that would have to wait longer is refused after this long, in seconds: its client sends no other meanwhile.
_HOLD_S = 1.0
# No address owes more than it pays in this long, in seconds.
_MAX_PAYING_S = 60.0
# One request adds at most this much, in seconds: a part of its time may have been spent waiting for other clients.
_MAX_COST_S = 1.0
# Addresses that are remembered; beyond it, those that owe nothing are forgotten, then those that owe least.
_MAX_ADDRESSES = 10_000


class TooManyRefusals(Exception):
    """The address would have to wait for longer than `MAX_WAIT_S`.

    Attributes:
        retry_after_s: Seconds after which a request would be taken.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(retry_after_s)
        self.retry_after_s = retry_after_s


@dataclass(slots=True)
class _Account:
    """What one address owes, in seconds, at a time of the clock; its requests take turns while it owes."""

    debt_s: float = 0.0
    at_s: float = 0.0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    num_waiting: int = 0


class RefusalBook:
    """The debts of addresses; a debt is paid at a constant rate as time passes."""

    def __init__(self, share: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without debts.

        Args:
            share: Part of one second's time that an address may spend on refused requests, each second; in (0, 1], or
                0 to never slow anybody down.
            clock: Seconds from any origin.
        """
        self._share = share
        self._clock = clock
        self._accounts: dict[str, _Account] = {}

    def charge(self, address: str, cost_s: float) -> None:
        """Add the cost of a refused request, in seconds of the node's time."""
        if not self._share or not address:
            return
        account = self._accounts.setdefault(address, _Account(at_s=self._clock()))
        self._settle(account)
        most_s = BURST_S + self._share * _MAX_PAYING_S
        account.debt_s = min(account.debt_s + min(cost_s, _MAX_COST_S), most_s)
        if len(self._accounts) > _MAX_ADDRESSES:
            self._forget()

    def wait_s(self, address: str) -> float:
        """Return the seconds until an address owes no more than the burst; 0 if it does not now."""
        account = self._accounts.get(address)
        if account is None:
            return 0.0
        self._settle(account)
        return max(account.debt_s - BURST_S, 0.0) / self._share

    @contextlib.asynccontextmanager
    async def turn(self, address: str) -> AsyncIterator[None]:
        """Hold a request of an indebted address back until it is its turn; others pass at once.

        Raises:
            TooManyRefusals: It would have to wait too long.
        """
        if not self.wait_s(address):
            yield
            return
        account = self._accounts[address]
        account.num_waiting += 1
        try:
            await self._wait(address, account.turn)
        finally:
            account.num_waiting -= 1
        try:
            yield
        finally:
            account.turn.release()

    async def _wait(self, address: str, turn: asyncio.Lock) -> None:
        """Take the address's turn once its debt is paid."""
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                await turn.acquire()
        except TimeoutError:
            raise TooManyRefusals(self.wait_s(address) + MAX_WAIT_S) from None
        wait_s = self.wait_s(address)
        try:
            await asyncio.sleep(wait_s if wait_s <= MAX_WAIT_S else _HOLD_S)
            if wait_s > MAX_WAIT_S:
                raise TooManyRefusals(wait_s)
        except BaseException:
            turn.release()
            raise

    def _settle(self, account: _Account) -> None:
        """Subtract what has been paid since the last look."""
        now = self._clock()
        account.debt_s = max(account.debt_s - (now - account.at_s) * self._share, 0.0)
        account.at_s = now

    def _forget(self) -> None:
        """Forget nine addresses in ten, those that owe least first; one that is being served stays."""
        for account in self._accounts.values():
            self._settle(account)
        free = [
            (one.debt_s, name) for name, one in self._accounts.items() if not one.num_waiting and not one.turn.locked()
        ]
        for _, name in sorted(free)[: len(self._accounts) * 9 // 10]:
            del self._accounts[name]
