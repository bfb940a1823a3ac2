"""Which chunks run side by side, with threads that wait for each other's events and never for time."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.jobs.isolation import Isolation
from testing.waiting import PATIENCE_S


def wait() -> None:
    pass


class Chunk:
    """Runs until `end`."""

    def __init__(self, isolation: Isolation, pool: ThreadPoolExecutor, *, is_suspect: bool = False) -> None:
        self.has_begun, self._may_end = threading.Event(), threading.Event()
        self._asked = threading.Event()

        def run() -> None:
            self._asked.set()
            with isolation.held(is_suspect=is_suspect, keep_waiting=wait):
                self.has_begun.set()
                assert self._may_end.wait(PATIENCE_S)

        self._future = pool.submit(run)
        assert self._asked.wait(PATIENCE_S)

    def end(self) -> None:
        self._may_end.set()
        self._future.result(PATIENCE_S)


def test_two_chunks_run_side_by_side() -> None:
    isolation = Isolation()
    with ThreadPoolExecutor() as pool:
        chunks = [Chunk(isolation, pool), Chunk(isolation, pool)]
        assert all(chunk.has_begun.wait(PATIENCE_S) for chunk in chunks)
        for chunk in chunks:
            chunk.end()


def test_a_suspect_waits_for_others_and_others_for_it() -> None:
    isolation = Isolation()
    with ThreadPoolExecutor() as pool:
        first = Chunk(isolation, pool)
        assert first.has_begun.wait(PATIENCE_S)
        suspect = Chunk(isolation, pool, is_suspect=True)
        assert not suspect.has_begun.is_set()
        first.end()
        assert suspect.has_begun.wait(PATIENCE_S)
        later = Chunk(isolation, pool)
        assert not later.has_begun.is_set()
        suspect.end()
        assert later.has_begun.wait(PATIENCE_S)
        later.end()


def test_two_suspects_run_one_after_the_other() -> None:
    isolation = Isolation()
    with ThreadPoolExecutor() as pool:
        first = Chunk(isolation, pool, is_suspect=True)
        assert first.has_begun.wait(PATIENCE_S)
        second = Chunk(isolation, pool, is_suspect=True)
        assert not second.has_begun.is_set()
        first.end()
        assert second.has_begun.wait(PATIENCE_S)
        second.end()


def test_a_suspect_that_stops_waiting_blocks_no_other_chunk() -> None:
    def give_up() -> None:
        raise InterruptedError

    isolation = Isolation()
    with ThreadPoolExecutor() as pool:
        first = Chunk(isolation, pool)
        assert first.has_begun.wait(PATIENCE_S)
        with pytest.raises(InterruptedError), isolation.held(is_suspect=True, keep_waiting=give_up):
            pytest.fail("it was not to run")
        second = Chunk(isolation, pool)
        assert second.has_begun.wait(PATIENCE_S)
        first.end()
        second.end()
