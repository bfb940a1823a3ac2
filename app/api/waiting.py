"""`Prefer: wait=n` on reads of a job: the answer waits until the job has ended, for at most n seconds.

A waiting request is one of the node's event streams: it counts among their limit, holds no thread and no database
connection, and ends when the node shuts down. Imports no SQL; runs on the event loop.

**Source**: RFC 7240 section 4.3.
"""

import asyncio
import re
from typing import Annotated

from fastapi import Depends, Header, Request, Response

from app.api.access.ids import JobId, TrainJobId
from app.api.deps import ServicesDep
from app.api.serving.disconnects import unless_left
from app.errors import Unavailable
from app.services.jobs.events import JobEvents

# Proxies end requests that are silent for a minute, by default.
MAX_WAIT_S = 55
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,9})\"?\s*(;.*)?", re.IGNORECASE)
_Prefer = Annotated[
    str | None,
    Header(
        max_length=200,
        description=f"`wait=n` answers once the job has ended, or after n seconds, at most {MAX_WAIT_S}; "
        "`Preference-Applied` has the n that was used. Without it the node could not wait.",
    ),
]


async def _wait_for_job(
    job_id: JobId, request: Request, response: Response, services: ServicesDep, prefer: _Prefer = None
) -> None:
    await _wait(job_id, prefer, request, response, services.events)


async def _wait_for_train_job(
    job_id: TrainJobId, request: Request, response: Response, services: ServicesDep, prefer: _Prefer = None
) -> None:
    await _wait(job_id, prefer, request, response, services.events)


AFTER_JOB, AFTER_TRAIN_JOB = Depends(_wait_for_job), Depends(_wait_for_train_job)


async def _wait(job_id: str, prefer: str | None, request: Request, response: Response, events: JobEvents) -> None:
    """Wait as the request prefers, and tell it in the head of its answer."""
    seconds = _asked(prefer or "")
    if seconds is None:
        return
    try:
        await unless_left(request, _until_ended(job_id, events, seconds))
    except Unavailable:  # as many viewers as there may be, or a shutdown: the answer comes at once
        return
    response.headers["Preference-Applied"] = f"wait={seconds}"


async def _until_ended(job_id: str, events: JobEvents, seconds: int) -> None:
    async with events.watch(job_id, seen_version=None) as watch:
        try:
            async with asyncio.timeout(seconds):
                async for _ in watch:
                    pass
        except TimeoutError:
            pass


def _asked(prefer: str) -> int | None:
    """Return the seconds of the first `wait` of a request; None if it has none that can be read."""
    for part in prefer.split(","):
        if found := _WAIT.fullmatch(part.strip()):
            return min(int(found[1]), MAX_WAIT_S)
    return None
