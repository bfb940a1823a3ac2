"""The threads that prepare pictures: bounded, beside the event loop, and closed with what waits."""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

from app.errors import Invalid, QueueFull, Unavailable
from app.services.inference.preprocessing import PictureRequest, PreparationPool
from app.services.process.thread_pools import BACKGROUND_NICE, NUM_LARGE_PICTURES
from testing.waiting import PATIENCE_S


@pytest.fixture
def pool() -> Iterator[PreparationPool]:
    pool = PreparationPool(max_queue_size=2)
    yield pool
    pool.close()


def test_a_call_runs_beside_the_event_loop_and_answers_or_raises(pool: PreparationPool) -> None:
    def refuse() -> None:
        raise Invalid("the picture is damaged", code="corrupt_image")

    async def main() -> None:
        assert (await pool.run(threading.current_thread)).name.startswith("preparation")
        with pytest.raises(Invalid, match="the picture is damaged"):
            await pool.run(refuse)

    asyncio.run(main())


async def fill(pool: PreparationPool, gate: threading.Event) -> list["asyncio.Task[bool]"]:
    """Give the pool all the calls that it takes; they run or wait until the gate opens."""
    calls: list[asyncio.Task[bool]] = []
    while len(calls) < 1_000:
        call = asyncio.ensure_future(pool.run(lambda: gate.wait(PATIENCE_S)))
        await asyncio.sleep(0)
        if call.done():
            assert isinstance(call.exception(), QueueFull)
            return calls
        calls.append(call)
    raise AssertionError("the pool takes everything")


def test_more_than_may_wait_is_refused_at_once_and_taken_again_later(pool: PreparationPool) -> None:
    gate = threading.Event()

    async def main() -> None:
        calls = await fill(pool, gate)
        gate.set()
        assert all(await asyncio.gather(*calls))
        assert await pool.run(lambda: "taken") == "taken"

    asyncio.run(main())


def test_a_caller_that_leaves_takes_its_waiting_call_along(pool: PreparationPool) -> None:
    gate, has_run = threading.Event(), threading.Event()

    async def main() -> None:
        calls = await fill(pool, gate)
        last = calls.pop()
        last.cancel()
        await asyncio.wait([last])
        waiting = asyncio.ensure_future(pool.run(has_run.set))  # in the place that was left
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait([waiting])
        gate.set()
        await asyncio.gather(*calls)
        await pool.run(lambda: None)

    asyncio.run(main())
    assert not has_run.is_set()


def test_a_picture_that_takes_too_long_is_refused_and_the_next_one_served() -> None:
    gate = threading.Event()
    pool = PreparationPool(deadline_s=0.05)

    async def main() -> None:
        with pytest.raises(Invalid) as caught:
            await pool.run(lambda: gate.wait(PATIENCE_S))
        assert caught.value.code == "image_too_slow"
        gate.set()
        assert await pool.run(lambda: "served") == "served"

    asyncio.run(main())
    pool.close()


def test_closing_drops_what_waits(pool: PreparationPool) -> None:
    pool.close()
    pool.close()
    with pytest.raises(Unavailable):
        asyncio.run(pool.run(lambda: None))


def test_a_small_picture_is_prepared_while_large_ones_wait(pool: PreparationPool) -> None:
    gate = threading.Event()

    async def main() -> None:
        large = [
            asyncio.ensure_future(pool.run(lambda: gate.wait(PATIENCE_S), owner=PictureRequest(is_large=True)))
            for _ in range(NUM_LARGE_PICTURES + 1)
        ]
        await asyncio.sleep(0)
        assert await pool.run(lambda: "served", owner=PictureRequest()) == "served"
        assert not any(call.done() for call in large)
        gate.set()
        assert all(await asyncio.gather(*large))

    asyncio.run(main())


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_large_pictures_are_prepared_at_a_lower_priority(pool: PreparationPool) -> None:
    def nice() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert asyncio.run(pool.run(nice, owner=PictureRequest(is_large=True))) == min(nice() + BACKGROUND_NICE, 19)


def test_its_threads_take_one_core_each_and_leave_the_devices_alone(pool: PreparationPool) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert asyncio.run(pool.run(torch.get_num_threads)) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
