"""HTTP as bytes on a socket, for clients that behave as no HTTP library does."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from testing.waiting import PATIENCE_S


@dataclass(frozen=True)
class Answer:
    """One response: its status, its headers with names in lower case, its body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire:
    """A client's connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE_S)
        self.sock = sock
        self._rest = b""

    def send(self, data: bytes) -> bool:
        """Send all of the data; return False if the server has closed the connection."""
        try:
            self.sock.sendall(data)
        except ConnectionError:
            return False
        return True

    def read(self) -> Answer:
        """Read one response; its body has the length that `Content-Length` says."""
        while b"\r\n\r\n" not in self._rest:
            self._rest += self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        while len(self._rest) < length:
            self._rest += self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        return Answer(int(first.split()[1]), headers, body)

    def read_to_end(self) -> bytes:
        """Read until the server closes the connection."""
        try:
            while data := self.sock.recv(65_536):
                self._rest += data
        except ConnectionError:
            pass
        return self._rest

    def is_closed(self) -> bool:
        """Wait until the server closes the connection; return False if it sends data first."""
        return not self.read_to_end()

    def _more(self) -> bytes:
        data = self.sock.recv(65_536)
        assert data, f"closed after {self._rest!r}"
        return data


@contextmanager
def connect(http: httpx.Client) -> Iterator[Wire]:
    """Connect to the server that an HTTP client uses."""
    with socket.create_connection((http.base_url.host, http.base_url.port or 0), timeout=PATIENCE_S) as sock:
        yield Wire(sock)


@contextmanager
def asking(http: httpx.Client, method: str, path: str, body: object = None) -> Iterator[None]:
    """Send a request inside the block, at whose end the client leaves without the answer."""
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: {http.base_url.host}\r\nContent-Length: {len(data)}\r\n"
    with connect(http) as wire:
        wire.send(f"{head}Content-Type: application/json\r\n\r\n".encode() + data)
        yield
