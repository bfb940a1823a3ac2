"""The exceptions of the client, each a sentence for a person, with the service's problem where there is one."""

import json
import re

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from foxhound_client.models import JobRead, ProblemField


class Problem(BaseModel):
    """What the service answers instead of a result (RFC 9457); the members of the schema `Problem`.

    Attributes:
        code: A stable word for the kind of problem, such as `dataset_name_taken`.
        detail: What is wrong and what to do.
        errors: The faults of an invalid request, each with a JSON pointer; None for other problems.
        request_id: Names the request in the service's log.
        dataset_id: The dataset that is in the way, if one is.
        existing_id: The dataset, model or job that has the name asked for, if one has.
        scope: The scope that the API key lacks, if it lacks one.
    """

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str = "Refused"
    status: int = 0
    detail: str
    instance: str = ""
    code: str = ""
    request_id: str = ""
    dataset_id: str | None = None
    existing_id: str | None = None
    scope: str | None = None
    errors: list[ProblemField] | None = None


class FoxhoundError(Exception):
    """The request did not succeed.

    Attributes:
        problem: The problem that the service answered with; None if it did not answer with one.
        status: The HTTP status; 0 without an answer.
    """

    def __init__(self, message: str, *, problem: Problem | None = None, status: int = 0) -> None:
        self.problem = problem
        self.status = status
        super().__init__(readable(message))

    @property
    def code(self) -> str:
        """The problem's code; empty without a problem."""
        return self.problem.code if self.problem else ""

    @property
    def faults(self) -> list[str]:
        """The faults of an invalid request, a line each: pointer and detail."""
        faults = (self.problem.errors if self.problem else None) or []
        return [readable(f"{fault.pointer}: {fault.detail}") for fault in faults]


class Unreachable(FoxhoundError):
    """The service did not answer within the retry time, or the connection was lost in a request of unknown effect.

    Attributes:
        has_answered: Whether the service has answered an earlier request of the client.
    """

    def __init__(self, message: str, *, has_answered: bool = False) -> None:
        self.has_answered = has_answered
        super().__init__(message)


class AccessRefused(FoxhoundError):
    """The API key is missing, wrong, or lacks a scope (401, 403)."""


class NotFound(FoxhoundError):
    """There is no object with this id (404)."""


class TryLater(FoxhoundError):
    """The service was full, starting, or over a quota for longer than the retry time (429, 502, 503, 504)."""


class DownloadFailed(FoxhoundError):
    """The file could not be completed or is damaged."""


class JobFailed(FoxhoundError):
    """A job that was waited for has failed or was cancelled.

    Attributes:
        job: The job, with its `error`.
    """

    def __init__(self, job: JobRead) -> None:
        self.job = job
        if job.error is None:
            message = f"The job {job.id} was cancelled."
        else:
            message = f"The job {job.id} failed. {job.error.title}: {job.error.detail} ({job.error.code})"
        super().__init__(message)


def readable(text: object) -> str:
    """Return a text with each non-printable character, which a terminal might interpret, replaced."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in str(text))


def refusal(status: int, reason: str, content: bytes) -> FoxhoundError:
    """Return the error for an unsuccessful answer."""
    kinds = {401: AccessRefused, 403: AccessRefused, 404: NotFound}
    kind = kinds.get(status, TryLater if status in (429, 502, 503, 504) else FoxhoundError)
    problem = _problem(content)
    if problem is None:
        return kind(
            f"The answer was {status} {reason}. Check that the URL is that of a Foxhound service.", status=status
        )
    return kind(f"{problem.title}: {problem.detail} ({status} {problem.code})", problem=problem, status=status)


def of_transport(error: httpx.TransportError) -> str:
    """Return why a connection failed, as text."""
    return re.sub(r"^\[Errno -?\d+\] ", "", readable(error)) or type(error).__name__


def _problem(content: bytes) -> Problem | None:
    try:
        return Problem.model_validate(json.loads(content))
    except (ValueError, RecursionError, ValidationError):
        return None
