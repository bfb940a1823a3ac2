"""A `JobContext` without the job engine: steps and transactions run immediately, chunks sequentially."""

from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from app.db.models import Job
from app.db.session import Database
from app.jobs.handler import JobHandler
from app.jobs.signals import JobCancelled, Json


class FakeJobContext:
    """One execution of a job, recorded.

    Attributes:
        names: The steps and transactions taken, in order.
        is_cancelled: Returns whether the job was cancelled meanwhile.
    """

    def __init__(self, db: Database, job_id: str, handler: JobHandler) -> None:
        self._db = db
        self._handler = handler
        self.id = job_id
        with db.snapshot() as session:
            job = session.get(Job, job_id)
            assert job is not None
            self.spec: dict[str, Json] = job.spec
            self.caller = job.caller
        self.names: list[str] = []
        self.is_cancelled: Callable[[], bool] = lambda: False
        self.is_stopping = False

    def step(self, name: str, fn: Callable[[], Json]) -> Json:
        self.check_cancelled()
        self.names.append(name)
        return fn()

    def transaction(self, name: str, fn: Callable[[Session], Json]) -> Json:
        self.check_cancelled()
        self.names.append(name)
        with self._db.transaction() as session:
            return fn(session)

    def chunks(self, items: Sequence[Json]) -> list[Json]:
        return [self._handler.run_chunk(self, item) for item in items]

    def check_held(self) -> None:
        pass

    def check_cancelled(self) -> None:
        if self.is_cancelled():
            raise JobCancelled


def run_job(
    db: Database, job_id: str, handler: JobHandler, is_cancelled: Callable[[], bool] = lambda: False
) -> dict[str, Json] | None:
    """Run a job to its end in the calling thread; only its handler's own effects occur."""
    context = FakeJobContext(db, job_id, handler)
    context.is_cancelled = is_cancelled
    return handler.run(context)
