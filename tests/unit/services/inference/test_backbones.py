"""Backbones that are loaded on demand: found by name, loaded once, evicted within a bound, never while in use."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from app.engine.engine import Engine
from app.errors import Invalid, ModelNotReady
from app.services.inference.backbones import FAILED_S, Backbones
from testing.fake_models import FakeSource, describe
from testing.waiting import wait_until


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def sources() -> dict[str, FakeSource]:
    return {name: FakeSource(describe(name, num_bytes=1_000)) for name in ("a", "b", "c")}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(sources: dict[str, FakeSource], clock: Clock) -> Iterator[Callable[..., Backbones]]:
    engine = Engine()
    engine.start()
    made: list[Backbones] = []

    def make(**options: Any) -> Backbones:
        made.append(Backbones(engine, sources=lambda: sources, clock=clock, **options))
        return made[-1]

    yield make
    for source in sources.values():
        source.gate.set()
    for backbones in made:
        backbones.close()
    engine.close()


async def use(backbones: Backbones, *names: str) -> None:
    for name in names:
        async with backbones.use(name) as loaded:
            assert loaded.description.facts.name == name


def states(backbones: Backbones) -> str:
    return " ".join(backbones.state(name)[0] for name in backbones.names())


def test_a_backbone_is_loaded_once_by_the_first_of_many_calls(make: Callable, sources: dict[str, FakeSource]) -> None:
    backbones = make()
    assert states(backbones) == "loadable loadable loadable"

    async def many() -> None:
        await asyncio.gather(*(use(backbones, "a") for _ in range(10)))

    asyncio.run(many())
    assert sources["a"].num_loads == 1
    assert states(backbones) == "ready loadable loadable"


def test_the_least_recently_used_backbone_makes_room(make: Callable, sources: dict[str, FakeSource]) -> None:
    backbones = make(max_bytes=2_000)
    asyncio.run(use(backbones, "a", "b", "a", "c"))
    assert states(backbones) == "ready loadable ready"
    asyncio.run(use(backbones, "b"))
    assert states(backbones) == "loadable ready ready"
    assert [source.num_loads for source in sources.values()] == [1, 2, 1]


def test_a_backbone_in_use_is_not_evicted(make: Callable) -> None:
    backbones = make(max_bytes=1_000, load_wait_s=0.05)

    async def play() -> None:
        async with backbones.use("a"):
            with pytest.raises(ModelNotReady, match="still loading"):
                await use(backbones, "b")
            assert states(backbones) == "ready loading loadable"
        await asyncio.to_thread(wait_until, lambda: states(backbones) == "loadable ready loadable")

    asyncio.run(play())


def test_one_that_is_larger_than_the_bound_fails_with_the_settings_name(make: Callable) -> None:
    backbones = make(max_bytes=999)
    with pytest.raises(ModelNotReady, match="FOXHOUND_BACKBONES_MB"):
        asyncio.run(use(backbones, "a"))
    state, detail = backbones.state("a")
    assert state == "failed"
    assert detail is not None
    assert "FOXHOUND_BACKBONES_MB" in detail


def test_a_slow_load_is_a_503_with_a_time_to_come_back(make: Callable, sources: dict[str, FakeSource]) -> None:
    backbones = make(load_wait_s=0.01)
    sources["a"].gate.clear()
    with pytest.raises(ModelNotReady) as refused:
        asyncio.run(use(backbones, "a"))
    assert refused.value.retry_after_s
    sources["a"].gate.set()
    wait_until(lambda: backbones.state("a")[0] == "ready")
    asyncio.run(use(backbones, "a"))
    assert sources["a"].num_loads == 1


def test_a_failure_is_kept_for_a_while_and_then_tried_again(
    make: Callable, sources: dict[str, FakeSource], clock: Clock
) -> None:
    backbones = make()
    sources["a"].fault = OSError("/secret/path")
    for _ in range(2):
        with pytest.raises(ModelNotReady) as refused:
            asyncio.run(use(backbones, "a"))
        assert "secret" not in refused.value.detail
    assert (sources["a"].num_loads, backbones.state("a")[0]) == (1, "failed")
    sources["a"].fault = None
    clock.now += FAILED_S
    asyncio.run(use(backbones, "a"))
    assert states(backbones) == "ready loadable loadable"


def test_one_whose_files_were_replaced_is_loaded_again(make: Callable, sources: dict[str, FakeSource]) -> None:
    backbones = make()
    asyncio.run(use(backbones, "a"))
    sources["a"].description = describe("a", sha256="b" * 64)
    assert backbones.describe("a").facts.weights_sha256 == "b" * 64

    async def loaded_weights() -> str:
        async with backbones.use("a") as loaded:
            return loaded.description.facts.weights_sha256

    assert asyncio.run(loaded_weights()) == "b" * 64


def test_an_unknown_name_is_refused_with_the_known_ones(make: Callable, sources: dict[str, FakeSource]) -> None:
    with pytest.raises(Invalid, match="It has a, b, c"):
        make().describe("d")
    sources.update({f"x{number:03}": sources["a"] for number in range(300)})
    with pytest.raises(Invalid) as refused:
        make().describe("d")
    assert len(refused.value.detail) < 400
