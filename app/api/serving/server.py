"""The HTTP servers of an API process and their shutdown, in which every accepted request gets a response.

Imports no routes. Runs on the event loop; a signal only sets `should_exit`, which uvicorn's loop reads every 0.1 s.
"""

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from app.api.deps import Services
from app.api.serving.connection_book import ConnectionBook, ConnectionLimits
from app.api.serving.draining import Draining
from app.api.serving.parsers import connection_class
from app.metrics.http import HttpMetrics

log = logging.getLogger("foxhound")

# Time for which idle connections stay open, in seconds: a client that sends its next request on one gets a 503 instead
# of a connection error.
_KEEP_OPEN_S = 0.5
_POLL_S = 0.05
# Time that requests have after the grace period to answer 503, in seconds.
_CANCEL_GRACE_S = 1.0
# File descriptors of a process besides its connections: files, database, listeners.
_OTHER_FILES = 256


class ServerConfig(uvicorn.Config):
    """uvicorn's settings for all servers of the process, with bounded connections.

    Attributes:
        book: The open connections of the server.
        delay_s: Time from `/readyz` answering 503 until new requests are refused, in seconds.
        metrics: Counts the heads and connections that are refused; None: nothing does.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: ConnectionLimits,
        parser: str = "auto",
        delay_s: float = 0.0,
        metrics: HttpMetrics | None = None,
        **options: Any,
    ) -> None:
        """Configure a server; `options` are uvicorn's."""
        super().__init__(
            app,
            http=connection_class(parser),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            **options,
        )
        self.book = ConnectionBook(limits)
        self.delay_s = delay_s
        self.metrics = metrics


class Server(uvicorn.Server):
    """Serves the public application and shuts it down in stages.

    First, `/readyz` answers 503 for the configured delay. Then new requests, and requests that still wait for the
    engine, get 503; event streams end; running requests have the configured grace period. Requests that still run after
    it get 503. Finally the listener closes.
    """

    def __init__(self, config: ServerConfig, app: FastAPI) -> None:
        """Create the server of `app`, the application from `create_app`."""
        super().__init__(config)
        self._app = app
        self._delay_s = config.delay_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Shut down in stages; a second SIGINT skips the remaining ones."""
        loop = asyncio.get_running_loop()
        draining: Draining = self._app.state.draining
        draining.leave()
        await self._until(loop.time() + self._delay_s, lambda: False)
        draining.refuse()
        services: Services | None = getattr(self._app.state, "services", None)
        if services is not None:
            services.events.close()
            services.inference.refuse_waiting()
        began = loop.time()
        grace_s = self.config.timeout_graceful_shutdown or 0
        running = set(self.server_state.tasks)
        await self._until(began + grace_s, lambda: all(task.done() for task in running))
        await self._until(began + min(_KEEP_OPEN_S, grace_s), lambda: not self.server_state.connections)
        await self._cut_short()
        self.config.timeout_graceful_shutdown = max(1, round(began + grace_s - loop.time()))
        await super().shutdown(sockets)

    async def _cut_short(self) -> None:
        """Cancel the running requests; the middleware answers 503 to a cancelled request."""
        running = set(self.server_state.tasks)
        if running:
            log.warning("%d requests were cancelled because the grace period of the shutdown is over.", len(running))
        for task in running:
            task.cancel()
        await self._until(
            asyncio.get_running_loop().time() + _CANCEL_GRACE_S, lambda: all(task.done() for task in running)
        )

    async def _until(self, deadline: float, is_over: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        # uvicorn's signal handler sets `force_exit`, a plain attribute; there is no event to wait for.
        while not (is_over() or self.force_exit) and (left := deadline - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(_POLL_S, left))


class InnerServer(uvicorn.Server):
    """A second server of the process; only the main server handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield


def allow_connections(number: int) -> None:
    """Raise this process's limit of open files to what `number` connections need, up to the hard limit.

    The soft limit of systemd and many shells is 1,024, fewer than connections and files together.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
