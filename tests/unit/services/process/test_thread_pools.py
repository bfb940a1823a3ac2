"""Pools serve their users in turn, refuse what is too much, and count a thread as busy until it is free."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from app.errors import QueueFull, Unavailable
from app.services.process.thread_pools import BACKGROUND_NICE, CallTooSlow, WorkPool, open_pools
from testing.waiting import PATIENCE_S


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    gate = threading.Event()
    yield gate
    gate.set()


def test_requests_take_turns_whatever_each_one_asks_for(gate: threading.Event) -> None:
    pool = WorkPool("one", num_threads=1, max_waiting=100)
    served: list[str] = []

    async def main() -> None:
        first = asyncio.ensure_future(pool.run(lambda: gate.wait(PATIENCE_S)))
        await asyncio.sleep(0)
        names = ["many"] * 5 + ["two"] * 2 + ["one"]
        calls = [asyncio.ensure_future(pool.run(partial(served.append, name), owner=name)) for name in names]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *calls)

    asyncio.run(main())
    pool.close()
    assert served == ["many", "two", "one", "many", "two", "many", "many", "many"]


def test_callers_take_turns_whatever_requests_each_one_sends(gate: threading.Event) -> None:
    pool = WorkPool("one", num_threads=1, max_waiting=100)
    served: list[str] = []

    async def main() -> None:
        first = asyncio.ensure_future(pool.run(lambda: gate.wait(PATIENCE_S)))
        await asyncio.sleep(0)
        sent = [("many", "x"), ("many", "x"), ("many", "y"), ("many", "z"), ("one", "u")]
        calls = [
            asyncio.ensure_future(pool.run(partial(served.append, f"{caller} {owner}"), owner=owner, caller=caller))
            for caller, owner in sent
        ]
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, *calls)

    asyncio.run(main())
    pool.close()
    assert served == ["many x", "one u", "many y", "many z", "many x"]


def test_a_caller_that_fills_the_pool_keeps_no_other_one_out(gate: threading.Event) -> None:
    pool = WorkPool("full", num_threads=1, max_waiting=4)

    async def main() -> None:
        first = asyncio.ensure_future(pool.run(lambda: gate.wait(PATIENCE_S)))
        await asyncio.sleep(0)
        calls = [asyncio.ensure_future(pool.run(lambda: None, caller="many")) for _ in range(4)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await pool.run(lambda: None, caller="many")
        calls += [asyncio.ensure_future(pool.run(lambda: None, caller="one")) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await pool.run(lambda: None, caller="one")
        gate.set()
        await asyncio.gather(first, *calls)

    asyncio.run(main())
    pool.close()


def test_a_call_beyond_its_deadline_is_given_up_and_its_thread_counts_until_it_is_free(gate: threading.Event) -> None:
    pool = WorkPool("slow", num_threads=1, max_waiting=1, deadline_s=0.05)

    async def main() -> None:
        with pytest.raises(CallTooSlow):
            await pool.run(lambda: gate.wait(PATIENCE_S))
        waiting = asyncio.ensure_future(pool.run(lambda: "served"))  # its deadline begins with its turn
        await asyncio.sleep(0.1)
        assert not waiting.done()
        with pytest.raises(QueueFull):
            await pool.run(lambda: "refused")
        gate.set()
        assert await waiting == "served"

    asyncio.run(main())
    pool.close()


def test_a_caller_that_leaves_while_its_call_runs_keeps_the_thread_busy(gate: threading.Event) -> None:
    pool = WorkPool("left", num_threads=1, max_waiting=5)
    started, has_run = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        gate.wait(PATIENCE_S)

    async def main() -> None:
        leaving = asyncio.ensure_future(pool.run(hold))
        await asyncio.to_thread(started.wait, PATIENCE_S)
        next_one = asyncio.ensure_future(pool.run(has_run.set))
        leaving.cancel()
        await asyncio.wait([leaving])
        assert not has_run.is_set()
        gate.set()
        await next_one
        assert has_run.is_set()

    asyncio.run(main())
    pool.close()


def test_callers_that_leave_in_any_order_leave_nothing_behind(gate: threading.Event) -> None:
    pool = WorkPool("order", num_threads=1, max_waiting=6)

    async def main() -> None:
        first = asyncio.ensure_future(pool.run(lambda: gate.wait(PATIENCE_S)))
        await asyncio.sleep(0)
        for owner in (None, "same"):
            calls = [asyncio.ensure_future(pool.run(lambda: None, owner=owner)) for _ in range(6)]
            await asyncio.sleep(0)
            for call in (calls[3], calls[0], calls[5], calls[1], calls[2], calls[4]):
                call.cancel()
            await asyncio.wait(calls)
        gate.set()
        await first
        assert await asyncio.gather(*(pool.run(partial(int, k)) for k in range(6))) == list(range(6))

    asyncio.run(main())
    pool.close()


def test_an_error_of_the_call_reaches_its_caller_and_frees_the_thread() -> None:
    pool = WorkPool("error", num_threads=1, max_waiting=1, deadline_s=PATIENCE_S)

    def fail() -> None:
        raise TimeoutError("the call's own")

    async def main() -> None:
        for _ in range(3):
            with pytest.raises(TimeoutError, match="the call's own"):
                await pool.run(fail)

    asyncio.run(main())
    pool.close()


def test_a_closed_pool_is_unavailable() -> None:
    pool = WorkPool("closed", num_threads=1, max_waiting=1)
    pool.close()
    with pytest.raises(Unavailable):
        asyncio.run(pool.run(lambda: None))


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_uploads_are_decoded_at_a_lower_priority_than_everything_else() -> None:
    def nice() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    async def decode() -> tuple[int, int]:
        pools = open_pools()
        try:
            return await pools.decoding.run(nice), await pools.uploads.run(nice)
        finally:
            await asyncio.to_thread(pools.close)

    decoding, uploads = asyncio.run(decode())

    assert uploads == nice()
    assert decoding == min(nice() + BACKGROUND_NICE, 19)
