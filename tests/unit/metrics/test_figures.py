"""Values that are computed beside a scrape."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.errors import DatabaseUnavailable
from app.metrics.figures import RETRY_S, Figures
from testing.waiting import PATIENCE_S


class Source:
    """A value that can be slow or absent."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.is_away = False

    def __call__(self) -> int:
        self.calls += 1
        self.gate.wait(PATIENCE_S)
        if self.is_away:
            raise DatabaseUnavailable
        return self.calls


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.gate.set()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def figures(source: Source, now: list[float]) -> Iterator[Figures[int]]:
    with ThreadPoolExecutor(1) as threads:
        yield Figures(source, threads, max_age_s=60, clock=lambda: now[0])
        source.gate.set()


def read(figures: Figures[int], wait_s: float = PATIENCE_S) -> int | None:
    return asyncio.run(figures.read(wait_s))


def test_a_value_is_kept_until_it_is_too_old(figures: Figures[int], now: list[float]) -> None:
    assert [read(figures), read(figures)] == [1, 1]
    now[0] = 60
    assert read(figures) == 2


def test_a_value_that_cannot_be_had_is_none_and_soon_tried_again(
    figures: Figures[int], source: Source, now: list[float]
) -> None:
    source.is_away = True
    assert [read(figures), read(figures), source.calls] == [None, None, 1]
    source.is_away = False
    now[0] = RETRY_S
    assert read(figures) == 2


def test_a_slow_value_holds_no_scrape_up_and_is_computed_once(figures: Figures[int], source: Source) -> None:
    source.gate.clear()
    assert [read(figures, 0.01), read(figures, 0.01)] == [None, None]
    source.gate.set()
    assert (read(figures), source.calls) == (1, 1)
