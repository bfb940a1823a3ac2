"""The ids of the request and the job that the current thread or task works for; every line of the log has them.

Context variables: a task and `asyncio.to_thread` inherit them, a thread of a pool gets them by `carried`. Imports
nothing of the application.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

# What a client or the node's worker may send as an id; anything else would be text in the log.
ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

# The headers in which the node's worker hands both ids to its engine.
REQUEST_HEADER: Final = "X-Request-Id"
JOB_HEADER: Final = "X-Foxhound-Job"

_request: ContextVar[str] = ContextVar("foxhound_request", default="")
_job: ContextVar[str] = ContextVar("foxhound_job", default="")


def request_id() -> str:
    """Return the id of the request that is handled here, or that made the job; empty if there is none."""
    return _request.get()


def job_id() -> str:
    """Return the id of the job that runs here; empty if there is none."""
    return _job.get()


@contextmanager
def handling(*, request: str = "", job: str = "") -> Iterator[None]:
    """Work for a request, a job or both inside the block; an empty id leaves the present one."""
    before = [(variable, variable.set(new or variable.get())) for variable, new in ((_request, request), (_job, job))]
    try:
        yield
    finally:
        for variable, token in before:
            variable.reset(token)


def note_request(request: str) -> None:
    """Set the id of the request once it is known, until the end of the block of `handling`."""
    _request.set(request)


def carried(call: Callable[P, T]) -> Callable[P, T]:
    """Return a function that calls `call` on any thread with the present ids; several threads may call it at once."""
    context = copy_context()

    def run(*args: P.args, **words: P.kwargs) -> T:
        return context.copy().run(call, *args, **words)

    return run


def id_headers() -> dict[str, str]:
    """Return the headers that hand the present ids to the node's engine."""
    ids = {REQUEST_HEADER: request_id(), JOB_HEADER: job_id()}
    return {name: value for name, value in ids.items() if value}
