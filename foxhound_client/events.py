"""Server-sent events: of a job, followed across lost connections and restarts, and of a running generation."""

import json
from collections.abc import Callable

import httpx
from pydantic import ValidationError

from foxhound_client.downloads import OnProgress
from foxhound_client.errors import FoxhoundError, JobFailed, Problem, Unreachable, refusal
from foxhound_client.models import (
    GenerationEvent,
    GenerationFailure,
    GenerationProgress,
    GenerationRead,
    JobRead,
    JobSummary,
)
from foxhound_client.sending import Policy, fetch, parsed, unreachable
from foxhound_client.steps import Answer, Close, Emit, Flow, Items, Open, Read, Request, Sleep

ENDED = ("succeeded", "failed", "cancelled")
# Seconds between two polls while a job's events are not available.
POLL_S = 2.0
# The events of a running generation that are emitted or raised.
_KINDS = {"progress", "generation", "error"}

OnState = Callable[[JobSummary], None]


class EventParser:
    """Takes an event stream apart; an incomplete event at its end is dropped."""

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> list[str]:
        """Return the data of each event that is complete after these bytes."""
        *lines, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line.removeprefix(b"data:").removeprefix(b" ").decode("utf-8", "replace"))
            elif not line and self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events


def follow(policy: Policy, path: str, on_state: OnState = lambda _: None) -> Items[JobSummary]:
    """Emit each new state of a job, the final one included, across lost connections and restarts of the service.

    Whenever the events end before the job does, the job is read once and the events are requested again from the last
    seen state on. If no events are available, this amounts to polling.

    Args:
        policy: How long to retry.
        path: The job's path in the API.
        on_state: Called with each state before it is emitted.

    Raises:
        FoxhoundError: The job does not exist, has been deleted, or the service did not answer within the retry time.
    """
    seen = 0
    while True:
        opened = yield from _open(path, seen)
        parser = EventParser()
        while opened and (piece := (yield from _read())):
            for job in _jobs(parser.feed(piece)):
                if job.version > seen:
                    seen = job.version
                    on_state(job)
                    yield Emit(job)
                if job.status in ENDED:
                    return
        yield Close()
        # Also after an outage: this request is retried, and reports a lasting error.
        job = yield from fetch(policy, Request("GET", path), JobSummary)
        if job.version > seen:
            seen = job.version
            on_state(job)
            yield Emit(job)
        if job.status in ENDED:
            return
        yield Sleep(POLL_S)


def wait(policy: Policy, path: str, on_progress: OnProgress | None) -> Flow[JobRead]:
    """Wait until a job has ended; return it.

    Args:
        policy: How long to retry.
        path: The job's path in the API.
        on_progress: Called with what is done, the total, and their unit, for each new state of the job.

    Raises:
        JobFailed: The job failed or was cancelled.
        FoxhoundError: As of `follow`.
    """

    def report(job: JobSummary) -> None:
        if on_progress:
            on_progress(job.progress.done, job.progress.total, job.progress.unit)

    yield from follow(policy, path, report)
    job: JobRead = yield from fetch(policy, Request("GET", path), JobRead)
    if job.status != "succeeded":
        raise JobFailed(job)
    return job


def generation(policy: Policy, request: Request) -> Items[GenerationProgress | GenerationRead]:
    """Emit the steps of a generation, then the generation.

    Raises:
        FoxhoundError: The request was refused, or failed on its way.
        Unreachable: There was no answer, or the connection was lost. The request is not sent again.
    """
    parser = EventParser()
    try:
        answer: Answer = yield Open(request)
        policy.has_answered = True
        if answer.status >= 300:
            raise refusal(answer.status, answer.reason, answer.content)
        while piece := (yield Read()):
            for text in parser.feed(piece):
                if _is_other(text):
                    continue
                event = parsed(text, GenerationEvent)
                if isinstance(event, GenerationFailure):
                    raise _failed(event)
                yield Emit(event)
                if isinstance(event, GenerationRead):
                    return
    except httpx.TransportError as error:
        raise unreachable(policy, error) from None
    raise Unreachable(f"{policy.url} ended the events before the generation was complete.", has_answered=True)


def _is_other(text: str) -> bool:
    """Return whether an event is of a kind that is not emitted: `queued`, or one of a newer service."""
    try:
        kind = json.loads(text)["kind"]
    except (ValueError, TypeError, KeyError):
        return False
    return isinstance(kind, str) and kind not in _KINDS


def _failed(event: GenerationFailure) -> FoxhoundError:
    problem = event.model_dump_json()
    return refusal(Problem.model_validate(json.loads(problem)).status, "", problem.encode())


def _open(path: str, seen: int) -> Flow[bool]:
    """Open a job's events after the state `seen`; return whether there are events."""
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity"}
    if seen:
        headers["Last-Event-ID"] = str(seen)
    try:
        answer: Answer = yield Open(Request("GET", f"{path}/events", headers=headers))
    except httpx.TransportError:
        return False
    return answer.status == 200 and answer.headers.get("content-type", "").startswith("text/event-stream")


def _read() -> Flow[bytes]:
    """Read the next bytes; none if the connection is lost."""
    try:
        piece: bytes = yield Read()
    except httpx.TransportError:
        return b""
    return piece


def _jobs(events: list[str]) -> list[JobSummary]:
    """Return the jobs of events; other events are skipped."""
    jobs = []
    for text in events:
        try:
            jobs.append(parsed(text, JobSummary))
        except (FoxhoundError, ValidationError):
            continue
    return jobs
