"""Methods for jobs: read, follow, wait for, pause, resume, cancel and retry them."""

from foxhound_client import once
from foxhound_client.downloads import OnProgress
from foxhound_client.events import follow, wait
from foxhound_client.models import JobPage, JobRead, JobStatus, JobSummary
from foxhound_client.once import path_of
from foxhound_client.operations import Group, Transport, iteration, operation
from foxhound_client.sending import Policy, fetch, key_header
from foxhound_client.steps import Emit, Flow, Items, Request


class Jobs(Group[Transport]):
    """Jobs of the service."""

    @operation
    def get(self, job_id: str) -> Flow[JobRead]:
        """Return a job by its id."""
        return (yield from _job(self._policy, Request("GET", path_of("jobs", job_id))))

    @iteration
    def list(self, *, kind: str | None = None, status: JobStatus | None = None) -> Items[JobSummary]:
        """Yield the jobs of a kind and a status, newest first."""
        given = {"kind": kind, "status": status}
        query = {"limit": str(once.PAGE_SIZE), **{name: value for name, value in given.items() if value}}
        while True:
            page = yield from fetch(self._policy, Request("GET", "/jobs", query=query), JobPage)
            for job in page.items:
                yield Emit(job)
            if not page.next_cursor:
                return
            query["cursor"] = page.next_cursor

    @iteration
    def events(self, job_id: str) -> Items[JobSummary]:
        """Yield each new state of a job until it has ended, across lost connections and restarts of the service."""
        yield from follow(self._policy, path_of("jobs", job_id))

    @operation
    def wait(self, job_id: str, *, on_progress: OnProgress | None = None) -> Flow[JobRead]:
        """Wait until a job has succeeded, and return it.

        Args:
            job_id: The job's id.
            on_progress: Called with what is done, the total, and their unit, such as `images`.

        Raises:
            JobFailed: The job failed or was cancelled.
        """

        return (yield from wait(self._policy, path_of("jobs", job_id), on_progress))

    @operation
    def cancel(self, job_id: str) -> Flow[JobRead]:
        """Cancel a job; what it has made stays."""
        return (yield from _job(self._policy, _command(job_id, "cancel")))

    @operation
    def pause(self, job_id: str) -> Flow[JobRead]:
        """Pause a job after its current image."""
        return (yield from _job(self._policy, _command(job_id, "pause")))

    @operation
    def resume(self, job_id: str) -> Flow[JobRead]:
        """Resume a paused job."""
        return (yield from _job(self._policy, _command(job_id, "resume")))

    @operation
    def retry(self, job_id: str, *, idempotency_key: str | None = None) -> Flow[JobRead]:
        """Submit a job again that failed or was cancelled; return the new job."""
        request = Request("POST", f"{path_of('jobs', job_id)}/retry", headers=key_header(idempotency_key))
        return (yield from _job(self._policy, request))


def _job(policy: Policy, request: Request) -> Flow[JobRead]:
    job: JobRead = yield from fetch(policy, request, JobRead)
    return job


def _command(job_id: str, word: str) -> Request:
    return Request("POST", f"{path_of('jobs', job_id)}/{word}")
