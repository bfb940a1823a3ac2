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

# One question: (path, JSON body) of each HTTP request that it takes, sent at once, each on a connection of its own.
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


class Client:
    """Asks one question at a time. Belongs to one thread."""

    def __init__(self, port: int) -> None:
        """Connect to a local server as soon as something is asked."""
        self._port = port
        self._connections: list[http.client.HTTPConnection] = []

    def ask(self, question: Question) -> list[bytes]:
        """Send the requests of a question and wait for all answers.

        Raises:
            RuntimeError: One is anything but 200.
            OSError: The server is not there, or takes longer than `TIMEOUT_S`.
        """
        while len(self._connections) < len(question):
            self._connections.append(http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S))
        used = list(zip(self._connections, question, strict=False))
        for connection, (path, body) in used:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
        return [_read(connection, path) for connection, (path, _) in used]

    def close(self) -> None:
        """End the connections."""
        for connection in self._connections:
            connection.close()


def _read(connection: http.client.HTTPConnection, path: str) -> bytes:
    answer = connection.getresponse()
    text = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} answered {answer.status}: {text[:200]!r}")
    return text


def percentile_ms(loads: Sequence[Load], percent: int) -> float:
    """Return a percentile of all runs' latencies, in milliseconds."""
    latencies = [latency for load in loads for latency in load.latencies_s]
    return 1000 * statistics.quantiles(latencies, n=100, method="inclusive")[percent - 1]


def drive(port: int, questions: Sequence[Question], *, clients: int, seconds: float) -> Load:
    """Ask for some time; what is under way at the end is answered and counted.

    Raises:
        RuntimeError: A server answered anything but 200, or not in time.
    """
    numbers = itertools.count()
    latencies: list[float] = []
    faults: list[str] = []
    started_at = time.perf_counter()

    def run() -> None:
        client = Client(port)
        try:
            while time.perf_counter() < started_at + seconds and not faults:
                asked_at = time.perf_counter()
                client.ask(questions[next(numbers) % len(questions)])
                latencies.append(time.perf_counter() - asked_at)
        except (OSError, http.client.HTTPException, RuntimeError) as error:
            faults.append(str(error))
        finally:
            client.close()

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise RuntimeError(faults[0])
    return Load(len(latencies) / (time.perf_counter() - started_at), latencies)
