"""The servers of an API process, and how they stop: no request that was taken goes without an answer.

Runs on the event loop; a signal only sets `should_exit`, which uvicorn's loop sees within 0.1 s.
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
from app.api.serving.connections import ConnectionBook, ConnectionLimits
from app.api.serving.draining import Draining
from app.api.serving.parsers import connection_class

log = logging.getLogger("foxhound")

# A client that asks again on a connection that it keeps is told that the service stops, rather than finding the
# connection closed just as it sends: so long they stay open, where there are any.
_FAREWELL_S = 0.5
_LOOK_AGAIN_S = 0.05
# Requests that run at the end of the grace have this long to answer that they were cut short.
_LAST_WORDS_S = 1.0
# Files, database and listeners of a process, besides its connections.
_OTHER_FILES = 256


class ServerConfig(uvicorn.Config):
    """uvicorn's settings as every server of ours has them, with bounded connections.

    Attributes:
        book: The connections of the server.
        delay_s: Time between `/readyz` 503 and the first refused request.
    """

    def __init__(
        self, app: ASGIApp, *, limits: ConnectionLimits, parser: str = "auto", delay_s: float = 0.0, **options: Any
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


class Server(uvicorn.Server):
    """Serves the public application, and stops in order.

    First `/readyz` says 503, for as long as the configured delay. Then new requests get 503, what only waits for the
    engine too, event streams end, and what runs has the configured grace. What still runs at its end gets 503. Only
    then the listener closes.
    """

    def __init__(self, config: ServerConfig, app: FastAPI) -> None:
        """Wire the server; `app` is what `create_app` gave."""
        super().__init__(config)
        self._app = app
        self._delay_s = config.delay_s

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in order; a second SIGINT skips what is left of it."""
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
        await self._until(began + min(_FAREWELL_S, grace_s), lambda: not self.server_state.connections)
        await self._cut_short()
        self.config.timeout_graceful_shutdown = max(1, round(began + grace_s - loop.time()))
        await super().shutdown(sockets)

    async def _cut_short(self) -> None:
        """Let what still runs answer 503, as the middleware answers a cancelled request."""
        running = set(self.server_state.tasks)
        if running:
            log.warning("%d requests are cut short: the grace of the shutdown is over.", len(running))
        for task in running:
            task.cancel()
        await self._until(
            asyncio.get_running_loop().time() + _LAST_WORDS_S, lambda: all(task.done() for task in running)
        )

    async def _until(self, deadline: float, is_over: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        # uvicorn's signal handler sets `force_exit`, a plain attribute; there is no event to wait for.
        while not (is_over() or self.force_exit) and (left := deadline - loop.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(min(_LOOK_AGAIN_S, left))


class InnerServer(uvicorn.Server):
    """A server beside the process's main one, which alone handles signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the main server."""
        yield


def allow_connections(number: int) -> None:
    """Let this process open as many files as so many connections need, as far as the system lets it.

    systemd and many shells begin with 1,024, fewer than our connections and files together.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = number + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
