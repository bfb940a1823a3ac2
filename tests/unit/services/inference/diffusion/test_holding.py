"""Things that requests share: those who wait for one thing enter together, failures free their room, all is counted."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest

from app.services.inference.diffusion.holding import Holder


class Loads:
    """Each thing is its name's first letter and has 40 bytes; `bad` cannot be loaded. Records what is done."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def num_bytes(self, key: str, /) -> int:
        return 40

    def load(self, key: str, /) -> str:
        if key == "bad":
            raise OSError("broken")
        self.events.append(f"load {key}")
        return key[0]

    def drop(self, key: str, /) -> None:
        self.events.append(f"drop {key}")


Test = Callable[[Holder[str, str], Loads], Awaitable[None]]


def run(test: Test, max_bytes: int = 40) -> Loads:
    loads = Loads()

    async def main() -> None:
        holder = Holder(loads, max_bytes=max_bytes, max_waiting=16, thread_name="test-loader")
        try:
            await asyncio.wait_for(test(holder, loads), 10)
            assert holder.peak_bytes <= max_bytes
            await settle(holder)
        finally:
            holder.close()

    asyncio.run(main())
    return loads


async def settle(holder: Holder[str, str]) -> None:
    """Wait until the loading thread has done what it was given."""
    await asyncio.get_running_loop().run_in_executor(holder._thread, lambda: None)


async def use(holder: Holder[str, str], key: str, order: list[str]) -> None:
    async with holder.hold(key) as thing:
        order.append(thing)


def test_those_who_wait_for_one_thing_enter_together_with_the_first_of_them() -> None:
    order: list[str] = []

    async def test(holder: Holder[str, str], loads: Loads) -> None:
        async with holder.hold("a"):
            waiting = [asyncio.create_task(use(holder, key, order)) for key in ("b", "c", "b", "a", "c", "b")]
            await asyncio.sleep(0)
        await asyncio.gather(*waiting)

    assert run(test).events == ["load a", "drop a", "load b", "drop b", "load c", "drop c", "load a"]
    assert order == ["b", "b", "b", "c", "c", "a"]


def test_one_who_comes_later_does_not_overtake_those_who_wait() -> None:
    order: list[str] = []

    async def test(holder: Holder[str, str], loads: Loads) -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(holder.hold("a"))
            first = asyncio.create_task(use(holder, "b", order))
            await asyncio.sleep(0)
            late = asyncio.create_task(use(holder, "a", order))
            await asyncio.sleep(0)
        await asyncio.gather(first, late)

    run(test)
    assert order == ["b", "a"]


def test_what_cannot_be_loaded_raises_its_error_and_takes_no_room() -> None:
    order: list[str] = []

    async def test(holder: Holder[str, str], loads: Loads) -> None:
        for _ in range(2):
            with pytest.raises(OSError, match="broken"):
                await use(holder, "bad", order)
        assert holder.loaded("bad") is None
        await use(holder, "a", order)
        assert holder.loaded("a") == "a"

    run(test)
    assert order == ["a"]


def test_what_is_forgotten_is_loaded_anew_and_what_is_held_stays() -> None:
    dropped: list[str] = []

    async def test(holder: Holder[str, str], loads: Loads) -> None:
        async with holder.hold("a"):
            holder.forget(lambda key: key == "a")
            assert holder.loaded("a") == "a"
        async with holder.hold("b"):
            pass
        holder.forget(lambda key: key == "a")
        assert (holder.loaded("a"), holder.loaded("b")) == (None, "b")
        await use(holder, "a", dropped)

    assert run(test, max_bytes=100).events == ["load a", "load b", "load a"]


def test_a_thing_forgotten_while_it_is_loaded_goes_once_it_is() -> None:
    async def test(holder: Holder[str, str], loads: Loads) -> None:
        gone = asyncio.create_task(use(holder, "a", []))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        holder.forget(lambda _: True)
        await settle(holder)
        await asyncio.sleep(0.05)
        assert holder.loaded("a") is None

    run(test)


def test_the_owner_hears_of_what_is_dropped() -> None:
    heard: list[str] = []

    async def main() -> None:
        holder = Holder(Loads(), max_bytes=40, max_waiting=4, thread_name="test-loader", on_drop=heard.append)
        for key in ("a", "b"):
            await use(holder, key, [])
        holder.close()

    asyncio.run(main())
    assert heard == ["a"]


def test_what_it_does_is_counted() -> None:
    def counts(holder: Holder[str, str]) -> tuple[int, ...]:
        state = holder.state()
        assert state.num_bytes <= state.max_bytes
        return state.loaded, state.waiting, state.loads, state.failures, state.evictions

    async def test(holder: Holder[str, str], loads: Loads) -> None:
        with pytest.raises(OSError, match="broken"):
            await use(holder, "bad", [])
        async with holder.hold("a"):
            waiting = asyncio.create_task(use(holder, "b", []))
            await asyncio.sleep(0)
            assert counts(holder) == (1, 1, 1, 1, 0)
        await waiting
        assert counts(holder) == (1, 0, 2, 1, 1)
        assert holder.state().num_bytes > 0
        holder.forget(lambda _: True)
        assert counts(holder) == (0, 0, 2, 1, 2)
        assert holder.state().num_bytes == 0

    run(test)
