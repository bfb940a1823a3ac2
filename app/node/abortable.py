"""A request to the node's engine that may take hours, and is given up at once when its caller no longer wants it.

The request runs on a thread of its own; to give it up, its connection is shut down, which the engine's half notices: it
ends the work at the next step. Imports neither jobs nor records nor models. Any thread.
"""

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx

# Between two calls of `check`; each reads a row of the database.
CHECK_S = 1.0
# The answer takes as long as the work does; a node that is gone closes the connection.
_TIMEOUT = httpx.Timeout(None, connect=5.0)


def post_abortably(
    path: Path,
    url: str,
    body: Any,
    *,
    headers: Mapping[str, str] | None = None,
    check: Callable[[], None],
    every_s: float = CHECK_S,
) -> httpx.Response:
    """Send a request and wait for its answer.

    Args:
        path: The node's socket.
        url: The route.
        body: JSON values.
        headers: Fields of the request.
        check: Called every `every_s` seconds on the caller's thread; what it raises ends the request.
        every_s: > 0.

    Raises:
        httpx.TransportError: The node is away, or went away.

    Source:
        httpcore's `trace` extension, whose events carry the connection's stream.
    """
    connection = _Connection()
    transport = httpx.HTTPTransport(uds=str(path))
    with (
        httpx.Client(transport=transport, base_url="http://node", timeout=_TIMEOUT) as http,
        ThreadPoolExecutor(1, thread_name_prefix="node-request") as thread,
    ):
        answer = thread.submit(http.post, url, json=body, headers=headers, extensions={"trace": connection.trace})
        try:
            while not wait([answer], timeout=every_s).done:
                check()
        except BaseException:
            connection.shut_down()
            raise
        return answer.result()


class _Connection:
    """The connection of one request, which two threads use."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._is_shut_down = False

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Keep the socket of a new connection; called by httpcore on the request's thread."""
        if event == "connection.connect_unix_socket.complete":
            self._sockets.append(info["return_value"].get_extra_info("socket"))
            if self._is_shut_down:
                self.shut_down()

    def shut_down(self) -> None:
        """End the connection, and one that is being made."""
        self._is_shut_down = True
        for one in self._sockets:
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:  # it has ended meanwhile
                continue
