"""Sockets for attacks: they send what no HTTP client would, and take every refusal. Blocking, a thread for each."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

# How long an answer may come after the attack's own time, in seconds; what is later counts as silence.
LAST_ANSWER_S = 5.0
# Between two tries on a connection that was refused at once, in seconds.
PAUSE_S = 0.05


@dataclass
class Target:
    """What is attacked, until when, and how it answered.

    Attributes:
        address: Where the attack comes from: not from the good client's address, as over a network.
        dataset_id: One that takes uploads.
        ends_at: On the monotonic clock.
        outcomes: Statuses, `closed` (refused without an answer) and `silent`, with their numbers.
    """

    host: str
    port: int
    address: str
    dataset_id: str
    ends_at: float
    outcomes: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_over(self) -> bool:
        """Whether the attack's time is over."""
        return time.monotonic() >= self.ends_at

    @property
    def patience_s(self) -> float:
        """How long an answer may still be waited for, in seconds."""
        return max(self.ends_at - time.monotonic(), 0.0) + LAST_ANSWER_S

    def count(self, outcome: str) -> None:
        """Count how one exchange ended."""
        with self.lock:
            self.outcomes[outcome] += 1


def head(path: str, *, method: str = "POST", content_type: str = "application/json", length: int = 0) -> bytes:
    """Return a request's head."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: localhost",
        f"Content-Type: {content_type}",
        f"Content-Length: {length}",
    ]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


def exchange(target: Target, chunks: Iterable[bytes]) -> None:
    """Send chunks as they come, as long as the server takes them, and count what it answers."""
    try:
        address = (target.host, target.port)
        with socket.create_connection(address, target.patience_s, source_address=(target.address, 0)) as connection:
            try:
                for chunk in chunks:
                    connection.sendall(chunk)
            except OSError:
                pass  # it has answered, and reads no more
            connection.settimeout(target.patience_s)
            target.count(_outcome(connection))
    except OSError:
        target.count("closed")
        time.sleep(PAUSE_S)


def repeat(target: Target, send: Callable[[], None], clients: int) -> None:
    """Let so many clients do the same again and again until the attack is over."""

    def work() -> None:
        while not target.is_over:
            send()

    with ThreadPoolExecutor(clients) as pool:
        for client in as_completed([pool.submit(work) for _ in range(clients)]):
            client.result()


def slowly(target: Target, first: bytes, chunk: bytes, pause_s: float) -> Iterable[bytes]:
    """Give a chunk every `pause_s` seconds until the attack is over."""
    yield first
    while not target.is_over:
        time.sleep(pause_s)
        yield chunk


def _outcome(connection: socket.socket) -> str:
    try:
        answer = connection.recv(1_000)
    except TimeoutError:
        return "silent"
    except OSError:
        return "closed"
    words = answer.split(b" ", 2)
    return words[1].decode("latin-1") if len(words) > 2 and answer.startswith(b"HTTP/") else "closed"
