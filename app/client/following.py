"""A job's states as they come: from its events, and by polling where those do not come through.

Knows the wire format of server-sent events. Runs in the caller's thread.
"""

import json
from collections.abc import Iterator

import httpx

from app.client.service import Json, Refused, Service

ENDED = ("succeeded", "failed", "cancelled")
# Between two looks at a job whose events cannot be had.
POLL_S = 2.0


def follow(service: Service, job_id: str) -> Iterator[Json]:
    """Give each new state of a job, the last one too, whatever happens to connections and to the service meanwhile.

    Whenever the events end before the job does, it is asked for once and the events are taken up again behind
    the state seen last. Where there are no events to be had, that is polling.

    Raises:
        Refused: There is no such job (any more).
        Unreachable: The service did not answer in time.
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
    """Give the job of each event until the stream ends, for whatever reason."""
    headers = {"Accept": "text/event-stream", **({"Last-Event-ID": str(seen)} if seen else {})}
    try:
        with service.stream(f"/jobs/{job_id}/events", headers) as answer:
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                yield from _parse(answer.iter_lines())
    except (Refused, httpx.TransportError, ValueError):
        return  # what is wrong, polling finds out


def _parse(lines: Iterator[str]) -> Iterator[Json]:
    """Give the job of each whole event; one that was cut off is none."""
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line.removeprefix("data:").removeprefix(" "))
        elif not line and data:
            yield json.loads("\n".join(data))
            data = []
