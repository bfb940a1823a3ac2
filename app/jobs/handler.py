"""The interface between the job machinery and the kinds of jobs: what a kind implements, and what it is handed.

Services implement `JobKind` and `JobHandler`; `app.jobs.context.JobExecution` and the fakes of the tests implement
`JobContext`. Imports no job engine. `run`, `run_chunk`, `cleanup` and `on_end` run in the worker process, on a
thread of the job; `on_end` also in the API process, when a job is cancelled before it began.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy.orm import Session

from app.db.models import Job
from app.jobs.signals import Json


class JobContext(Protocol):
    """One execution of a job or of one of its chunks, as its handler uses it."""

    @property
    def id(self) -> str:
        """The job's id."""

    @property
    def spec(self) -> dict[str, Json]:
        """What was submitted."""

    @property
    def caller(self) -> str:
        """Who submitted it: callers share the engine evenly."""

    @property
    def is_stopping(self) -> bool:
        """Whether the worker is shutting down: a handler that only waits should raise `Requeue`."""

    def step(self, name: str, fn: Callable[[], Json]) -> Json:
        """Run a function and record what it returns; after a crash in the middle it runs again.

        Args:
            name: The same at each execution.
            fn: Must be repeatable: it writes a file under a name that follows from the spec, for example.
        """

    def transaction(self, name: str, fn: Callable[[Session], Json]) -> Json:
        """Run a function in a database transaction that commits together with its record: exactly once.

        Args:
            name: The same at each execution.
            fn: May run more than once, but only one of its transactions commits. It must not wait for anything.
        """

    def chunks(self, items: Sequence[Json]) -> list[Json]:
        """Hand every item to `JobHandler.run_chunk`, on any worker, and return the results in the items' order.

        Raises:
            Exception: A chunk failed: the job fails with that chunk's problem.
        """

    def check_cancelled(self) -> None:
        """Return if the work may go on: a read of one row, to be called between images.

        Raises:
            JobCancelled: The job has to stop, or to pause (`JobPaused`); let it pass.
            Requeue: The worker is exiting, or the database is unavailable; let it pass.
            LeaseLost: Another worker has taken over the work; let it pass.
        """

    def check_held(self) -> None:
        """Return if this worker still holds the work; to be called before anything is removed.

        Raises:
            Requeue, LeaseLost: As in `check_cancelled`.
        """


class JobKind(Protocol):
    """What both processes need of a kind of job."""

    @property
    def kind(self) -> str:
        """The kind's name, in the job's row."""

    @property
    def queue(self) -> str:
        """`jobs`, or `generate` for work that must not wait behind datasets."""

    def on_end(self, session: Session, job: Job) -> None:
        """Update what belongs to the job, in the transaction that writes its last status; called exactly once."""

    def before_retry(self, session: Session, failed: Job, retry_id: str) -> None:
        """Prepare the retry of a failed job with the same spec, in the transaction that adds it.

        Raises:
            Conflict: The work cannot be done any more.
        """


class JobHandler(JobKind, Protocol):
    """The work of a kind of job.

    Any exception fails the job: an AppError becomes its `error`, any other one is logged and becomes
    `internal_error` without details.
    """

    def run(self, job: JobContext) -> dict[str, Json] | None:
        """Do the job and return its result.

        Must be a fixed sequence of `job.step`, `job.transaction` and `job.chunks`, which depends on the spec and
        on their results alone: after a crash it is called again, and recorded results are replayed.
        """

    def run_chunk(self, job: JobContext, item: Json) -> Json:
        """Do one item that `run` handed to `job.chunks`; it is called again after a crash, as `run` is."""

    def cleanup(self, job: JobContext) -> None:
        """Remove the unrecorded files of parts of the job that failed or crashed.

        Called while no part of the job runs: before the job pauses, and before it ends without success. May be
        called again.
        """
