"""Who watches a job: bounded, freed when he leaves, and never behind."""

import asyncio
from collections.abc import Collection
from contextlib import AsyncExitStack

import pytest

from app.db.base import utc_now
from app.errors import NotFound, Unavailable
from app.schemas.jobs import DatasetJobSummary, JobSummary
from app.schemas.progress import Progress
from app.services.jobs.events import JobEvents
from testing.waiting import PATIENCE_S


class Jobs:
    """Jobs in memory; counts the looks at them."""

    def __init__(self) -> None:
        self.rows = {"a": job("a")}
        self.num_looks = 0

    def watch(self, job_id: str) -> JobSummary:
        if job_id not in self.rows:
            raise NotFound
        return self.rows[job_id]

    def versions(self, job_ids: Collection[str]) -> dict[str, int]:
        self.num_looks += 1
        return {job_id: self.rows[job_id].version for job_id in job_ids if job_id in self.rows}


def job(job_id: str, version: int = 1, status: str = "running") -> JobSummary:
    progress = Progress(done=version, total=9, unit="images")
    fields = {"result": None, "error": None, "attempts": 1, "priority": 0, "retry_of": None, "request_id": None}
    times = {"created_at": utc_now(), "started_at": None, "finished_at": None}
    return DatasetJobSummary(id=job_id, status=status, version=version, progress=progress, **fields, **times)


def events(jobs: Jobs, max_streams: int = 2) -> JobEvents:
    return JobEvents(jobs, max_streams=max_streams, poll_s=0.01)  # type: ignore[arg-type]


def test_one_viewer_too_many_is_refused_until_another_leaves() -> None:
    async def run() -> None:
        watched = events(Jobs())
        async with watched.watch("a", seen_version=None):
            async with watched.watch("a", seen_version=None):
                with pytest.raises(Unavailable) as refused:
                    async with watched.watch("a", seen_version=None):
                        pass
                assert refused.value.code == "too_many_streams"
            async with watched.watch("a", seen_version=None):
                with pytest.raises(Unavailable):
                    async with watched.watch("a", seen_version=None):
                        pass

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_an_unknown_job_takes_no_place() -> None:
    async def run() -> None:
        watched = events(Jobs())
        for _ in range(5):  # more than may watch at once: a place that was kept would give `Unavailable`
            with pytest.raises(NotFound):
                async with watched.watch("b", seen_version=None):
                    pass

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_a_slow_viewer_gets_the_latest_state_and_the_end() -> None:
    async def run() -> None:
        jobs = Jobs()
        watched = events(jobs)
        async with watched.watch("a", seen_version=None) as watch:
            seen = []
            async for state in watch:
                seen.append(state.version)
                if state.version == 1:
                    for version in range(2, 6):
                        jobs.rows["a"] = job("a", version)
                        await looked(jobs)
                    jobs.rows["a"] = job("a", 6, "succeeded")
        assert (seen[0], seen[-1]) == (1, 6)
        assert len(seen) <= 3

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_all_viewers_share_one_look() -> None:
    async def run() -> None:
        jobs = Jobs()
        watched = events(jobs, max_streams=50)
        async with AsyncExitStack() as stack:
            watches = [await stack.enter_async_context(watched.watch("a", seen_version=1)) for _ in range(50)]
            before = jobs.num_looks
            jobs.rows["a"] = job("a", 2, "succeeded")
            told = await asyncio.gather(*(first(watch) for watch in watches))
            assert {state.version for state in told} == {2}
            assert jobs.num_looks - before < 25

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


def test_a_deleted_job_and_a_closing_process_end_the_watch() -> None:
    async def run() -> None:
        jobs = Jobs()
        watched = events(jobs)
        async with watched.watch("a", seen_version=1) as watch:
            jobs.rows.clear()
            assert [state async for state in watch] == []
        jobs.rows["a"] = job("a")
        async with watched.watch("a", seen_version=1) as watch:
            watched.close()
            assert [state async for state in watch] == []
        with pytest.raises(Unavailable):
            async with watched.watch("a", seen_version=1):
                pass

    asyncio.run(asyncio.wait_for(run(), PATIENCE_S))


async def looked(jobs: Jobs) -> None:
    before = jobs.num_looks
    while jobs.num_looks < before + 2:  # noqa: ASYNC110 - a thread counts
        await asyncio.sleep(0.005)


async def first(watch: object) -> JobSummary:
    async for state in watch:  # type: ignore[attr-defined]
        return state
    raise AssertionError
