"""Adapter sets in use: loaded once, shared, evicted within the bound; who finds no room waits in order."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import cast

import pytest

from app.errors import Invalid, QueueFull
from app.image_spec import AdapterSet, LoraUse
from app.modelpacks.adapters import AdapterFolder
from app.modelpacks.lora_file import AdapterFault
from app.services.inference.diffusion.adapters import Adapters


class Loads:
    """Every set has 40 bytes; `bad` cannot be loaded, `big` has 400; loading goes on while `may_load` is set."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.may_load = threading.Event()
        self.may_load.set()
        self.events: list[str] = []

    @property
    def folder(self) -> AdapterFolder:
        return cast(AdapterFolder, None)

    def num_bytes(self, adapters: AdapterSet) -> int:
        return 400 if adapters.loras[0].name == "big" else 40

    def load(self, adapters: AdapterSet) -> Mapping[str, str]:
        name = adapters.loras[0].name
        assert self.may_load.wait(10)
        if name == "bad":
            raise AdapterFault("It was replaced.")
        self.events.append(f"load {name}")
        self.loaded.append(name)
        return {name: "sha"}

    def drop(self, adapters: AdapterSet) -> None:
        self.events.append(f"drop {adapters.loras[0].name}")
        self.loaded.remove(adapters.loras[0].name)


def using(name: str) -> AdapterSet:
    return AdapterSet((LoraUse(name),))


def run(test: Callable[[Adapters, Loads], Awaitable[None]], *, max_bytes: int = 100, max_waiting: int = 8) -> Loads:
    loads = Loads()

    async def main() -> None:
        adapters = Adapters(lambda: loads, max_bytes=max_bytes, max_waiting=max_waiting)
        try:
            await asyncio.wait_for(test(adapters, loads), 10)
        finally:
            loads.may_load.set()
            adapters.close()

    asyncio.run(main())
    return loads


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_set_is_loaded_once_and_shared_and_stays() -> None:
    async def test(adapters: Adapters, loads: Loads) -> None:
        async with adapters.hold(using("a")) as files, adapters.hold(using("a")):
            assert files == {"a": "sha"}
        async with adapters.hold(using("a")):
            pass
        async with adapters.hold(AdapterSet()) as files:
            assert files == {}

    assert run(test).events == ["load a"]


def test_the_least_recently_used_set_is_evicted() -> None:
    async def test(adapters: Adapters, loads: Loads) -> None:
        for name in ("a", "b", "a", "c"):
            async with adapters.hold(using(name)):
                pass
        assert loads.loaded == ["a", "c"]

    assert run(test).events == ["load a", "load b", "drop b", "load c"]


def test_who_finds_no_room_waits_and_goes_in_order() -> None:
    order: list[str] = []

    async def draw(adapters: Adapters, name: str) -> None:
        async with adapters.hold(using(name)):
            order.append(name)

    async def test(adapters: Adapters, loads: Loads) -> None:
        async with AsyncExitStack() as held:
            await held.enter_async_context(adapters.hold(using("a")))
            await held.enter_async_context(adapters.hold(using("b")))
            waiting = [asyncio.create_task(draw(adapters, name)) for name in ("c", "a", "d")]
            await settle()
            assert order == [], "a is loaded, but c came first"
        await asyncio.gather(*waiting)
        assert order[0] in ("c", "a")
        assert sorted(order) == ["a", "c", "d"]
        assert len(loads.loaded) <= 2

    run(test)


def test_one_who_leaves_the_line_lets_the_next_in() -> None:
    async def test(adapters: Adapters, loads: Loads) -> None:
        async with adapters.hold(using("a")), adapters.hold(using("b")):
            first = asyncio.create_task(_enter(adapters, "c"))
            second = asyncio.create_task(_enter(adapters, "b"))
            await settle()
            first.cancel()
            assert await second == {"b": "sha"}
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await _enter(adapters, "c") == {"c": "sha"}

    run(test)


async def _enter(adapters: Adapters, name: str) -> Mapping[str, str]:
    async with adapters.hold(using(name)) as files:
        return files


def test_a_user_who_leaves_while_it_loads_keeps_no_memory() -> None:
    async def test(adapters: Adapters, loads: Loads) -> None:
        loads.may_load.clear()
        gone = asyncio.create_task(_enter(adapters, "a"))
        await settle()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        waiting = asyncio.gather(*(_enter(adapters, name) for name in ("b", "c", "d")))
        await settle()
        loads.may_load.set()
        assert await waiting == [{"b": "sha"}, {"c": "sha"}, {"d": "sha"}]
        assert len(loads.loaded) <= 2

    run(test)


def test_what_cannot_be_loaded_is_refused_each_time() -> None:
    async def test(adapters: Adapters, loads: Loads) -> None:
        for _ in range(2):
            with pytest.raises(Invalid, match=r"It was replaced\."):
                await _enter(adapters, "bad")
        with pytest.raises(Invalid) as caught:
            await _enter(adapters, "big")
        assert caught.value.errors[0].code == "loras_too_large"
        assert await _enter(adapters, "a") == {"a": "sha"}

    run(test)


def test_the_line_is_bounded() -> None:
    async def test(adapters: Adapters, loads: Loads) -> None:
        async with adapters.hold(using("a")), adapters.hold(using("b")):
            waiting = asyncio.create_task(_enter(adapters, "c"))
            await settle()
            with pytest.raises(QueueFull):
                await _enter(adapters, "d")
        await waiting

    run(test, max_waiting=1)
