"""Work that is done for one client only: it is cancelled when the client disconnects. Runs on the event loop."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

Result = TypeVar("Result")


async def unless_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work`, but cancel it as soon as the client has disconnected.

    Args:
        request: Its body is read already; what arrives after that is the disconnection.
        work: What the answer needs.

    Raises:
        ClientDisconnect: The client has disconnected, so that no answer can be sent.
    """
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        watch.cancel()
        task.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
