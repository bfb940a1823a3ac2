"""Closed-loop load: clients that ask again as soon as they are answered, on connections that stay open.

Knows nothing of the servers but paths and bodies. Each client is a thread.
"""

from __future__ import annotations

import http.client
import itertools
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

# One question: (path, JSON body) of each HTTP request that it takes, sent one after the other.
Question = list[tuple[str, bytes]]

TIMEOUT_S = 120.0


@dataclass
class Load:
    """What one run under load showed.

    Attributes:
        per_second: Questions answered a second.
        latencies_s: Seconds of each answer.
    """

    per_second: float
    latencies_s: list[float] = field(repr=False)


def percentile_ms(loads: Sequence[Load], percent: int) -> float:
    """Return a percentile of all runs' latencies, in milliseconds."""
    latencies = [latency for load in loads for latency in load.latencies_s]
    return 1000 * statistics.quantiles(latencies, n=100, method="inclusive")[percent - 1]


def drive(port: int, questions: Sequence[Question], *, clients: int, seconds: float) -> Load:
    """Ask for some time; what is under way at the end is answered and counted.

    Raises:
        RuntimeError: A server answered anything but 200.
    """
    numbers = itertools.count()
    latencies: list[float] = []
    faults: list[str] = []
    started_at = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
        try:
            while time.perf_counter() < started_at + seconds and not faults:
                asked_at = time.perf_counter()
                for path, body in questions[next(numbers) % len(questions)]:
                    _post(connection, path, body)
                latencies.append(time.perf_counter() - asked_at)
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            faults.append(str(error))
        finally:
            connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise RuntimeError(faults[0])
    return Load(len(latencies) / (time.perf_counter() - started_at), latencies)


def _post(connection: http.client.HTTPConnection, path: str, body: bytes) -> None:
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}: {text[:200]!r}")
