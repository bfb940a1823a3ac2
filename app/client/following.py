"""Follows a job: yields its states from server-sent events, and polls while no events arrive.

The module parses the wire format of server-sent events and imports nothing of the server. It runs in the caller's
thread.
"""

import json
from collections.abc import Iterator

import httpx

from app.client.service import Json, Refused, Service

ENDED = ("succeeded", "failed", "cancelled")
# Seconds between two polls while a job's events are not available.
POLL_S = 2.0


def follow(service: Service, job_id: str) -> Iterator[Json]:
    """Yield each new state of a job, the final one included, across lost connections and restarts of the service.

    Whenever the events end before the job does, the job is read once and the events are requested again from the
    last seen state on. If no events are available, this amounts to polling.

    Raises:
        Refused: The job does not exist or has been deleted.
        Unreachable: The service did not answer within the retry time.
    """
    seen = 0
    while True:
        for job in _events(service, job_id, seen):
            if job["version"] > seen:
                seen = job["version"]
                yield job
            if job["status"] in ENDED:
                return
        job = service.get(f"/jobs/{job_id}")
        if job["version"] > seen:
            seen = job["version"]
            yield job
        if job["status"] in ENDED:
            return
        service.sleep(POLL_S)


def _events(service: Service, job_id: str, seen: int) -> Iterator[Json]:
    """Yield the job of each event until the stream ends; errors end it too."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(seen)} if seen else {})}
    try:
        with service.stream(f"/jobs/{job_id}/events", headers) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                yield from _parse(answer.iter_lines())
    except (Refused, httpx.TransportError, ValueError):
        return  # the poll that follows reports a lasting error


def _parse(lines: Iterator[str]) -> Iterator[Json]:
    """Yield the job of each complete event; an incomplete event at the end is dropped."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield json.loads("\n".join(data))
            data = []
