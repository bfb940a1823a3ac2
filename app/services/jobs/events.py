"""Event streams of jobs: one poll of the database for all open streams, and the changes to each of them.

Runs on the event loop of the API process; the database is read on a thread. A viewer gets a job's latest state, not
every state in between, so no queue grows behind a slow viewer. Imports no HTTP framework.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.error_codes import ErrorCode
from app.errors import NotFound, Unavailable
from app.schemas.jobs import GenerateJobSummary, JobPlace, JobPreview, JobSummary
from app.services.jobs.service import JobService

logger = logging.getLogger(__name__)

ENDED = ("succeeded", "failed", "cancelled")
MAX_STREAMS = 256
POLL_S = 0.5


class JobWatch:
    """One viewer of one job: an iterator over states that are new to the viewer, which ends after the last one.

    Attributes:
        job_id: The job.
        version: Its newest version that is known here.
        is_over: Whether the viewer has the job's last state already, so that nothing new will come.
    """

    def __init__(self, job: JobSummary, seen_version: int | None) -> None:
        self.job_id = job.id
        self.version = job.version
        is_known = seen_version == job.version
        self.is_over = is_known and job.status in ENDED
        self._job = job
        self._shown: JobPreview | JobPlace | None = None
        self._is_pending = not is_known or self.is_over
        self._is_closed = False
        self._changed = asyncio.Event()
        if self._is_pending:
            self._changed.set()

    def put(self, job: JobSummary) -> None:
        """Set a newer state; it replaces one that was not fetched yet."""
        self.version = job.version
        self._job, self._is_pending = job, True
        self._changed.set()

    def show(self, shown: JobPreview | JobPlace) -> None:
        """Send the known state again with a preview or a place; it replaces one that was not fetched yet."""
        if self._job.status not in ENDED:
            self._shown, self._is_pending = shown, True
            self._changed.set()

    def close(self) -> None:
        """End the iteration after the pending state."""
        self._is_closed = True
        self._changed.set()

    async def __aiter__(self) -> AsyncIterator[JobSummary]:
        """Yield each new state."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            job, is_pending, shown = self._job, self._is_pending, self._shown
            self._is_pending, self._shown = False, None
            if is_pending:
                yield job if shown is None else _with(job, shown)
            if self._is_closed or (is_pending and job.status in ENDED):
                return


class JobEvents:
    """All watches of an API process."""

    def __init__(self, jobs: JobService, *, max_streams: int = MAX_STREAMS, poll_s: float = POLL_S) -> None:
        """Watch no job yet.

        Args:
            jobs: Reads the jobs.
            max_streams: Viewers at a time, >= 1; further ones are refused.
            poll_s: Time between two polls, in seconds, > 0.
        """
        self._jobs = jobs
        self._max_streams = max_streams
        self._poll_s = poll_s
        self._watches: set[JobWatch] = set()
        self._poller: asyncio.Task[None] | None = None
        self._is_closed = False

    @asynccontextmanager
    async def watch(self, job_id: str, *, seen_version: int | None) -> AsyncIterator[JobWatch]:
        """Watch a job for the length of the block.

        Args:
            job_id: Any job, ended ones too.
            seen_version: The version that the viewer has; it is sent again only if it is the job's last.

        Raises:
            NotFound: There is no such job.
            Unavailable: There are too many viewers, or the process is shutting down.
        """
        if self._is_closed or len(self._watches) >= self._max_streams:
            raise Unavailable("Too many event streams are open. Poll the job instead.", code=ErrorCode.TOO_MANY_STREAMS)
        watch = JobWatch(await asyncio.to_thread(self._jobs.watch, job_id), seen_version)
        self._watches.add(watch)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def show(self, job_id: str, shown: JobPreview | JobPlace) -> None:
        """Show the viewers of a job a preview or a place; those who come later get the next one."""
        for watch in self._watches:
            if watch.job_id == job_id:
                watch.show(shown)

    def close(self) -> None:
        """End every watch, and accept no new one."""
        self._is_closed = True
        for watch in self._watches:
            watch.close()

    async def _poll(self) -> None:
        while self._watches:
            await asyncio.sleep(self._poll_s)
            try:
                await self._read()
            except Exception:
                logger.warning("The watched jobs could not be read. The next poll follows.", exc_info=True)

    async def _read(self) -> None:
        watches = list(self._watches)
        versions = await asyncio.to_thread(self._jobs.versions, {watch.job_id for watch in watches})
        for job_id in {watch.job_id for watch in watches if versions.get(watch.job_id) != watch.version}:
            try:
                job = await asyncio.to_thread(self._jobs.watch, job_id)
            except NotFound:
                job = None
            for watch in watches:
                if watch.job_id == job_id:
                    if job is None:
                        watch.close()
                    elif job.version > watch.version:
                        watch.put(job)


def _with(job: JobSummary, shown: JobPreview | JobPlace) -> JobSummary:
    if not isinstance(job, GenerateJobSummary):
        return job
    update = {"preview": shown} if isinstance(shown, JobPreview) else {"position": shown.position}
    return job.model_copy(update=update)
