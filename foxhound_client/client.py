"""`Foxhound` blocks its thread, `AsyncFoxhound` runs on the caller's event loop; both have the same methods.

A client is used by one thread or event loop at a time. Timeouts: 10 s to connect, 60 s without a byte, by default.
"""

import os
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

import httpx

from foxhound_client.datasets import Datasets
from foxhound_client.errors import FoxhoundError
from foxhound_client.jobs import Jobs
from foxhound_client.sending import Policy
from foxhound_client.service import Service
from foxhound_client.trained_models import Models
from foxhound_client.transports import Awaiting, Blocking

DEFAULT_URL = "http://127.0.0.1:8000"
CONNECT_S = 10.0
# Above the longest silence of an answer: an event stream sends at least a comment every 15 s.
SILENCE_S = 60.0


class Foxhound(Service[Blocking]):
    """A blocking client.

    Attributes:
        datasets: Methods for datasets.
        models: Methods for trained models.
        jobs: Methods for jobs.
        url: URL of the service.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = SILENCE_S,
        retry_for_s: float = 120.0,
        first_answer_s: float = 2.0,
        on_retry: Callable[[str], None] | None = None,
        sleep: Callable[[float], None] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Create a client; nothing is connected yet.

        Args:
            base_url: `http(s)://host[:port][/prefix]`; default: `FOXHOUND_URL`, then port 8000 of this machine.
            api_key: Default: `FOXHOUND_API_KEY`, then none.
            timeout_s: Longest silence of a connection, in seconds, > 0.
            retry_for_s: How long to retry while the service does not answer or is full, in seconds, >= 0.
            first_answer_s: The same until the service has answered for the first time.
            on_retry: Called with the reason before each wait.
            sleep: Waits for so many seconds; default: `time.sleep`.
            transport: Transport of httpx; for tests and proxies.

        Raises:
            FoxhoundError: The URL is no HTTP URL.
        """
        self.url = _url(base_url)
        http = httpx.Client(**_options(self.url, api_key, timeout_s), transport=transport)
        policy = Policy(self.url, retry_for_s, first_answer_s, on_retry or (lambda _: None))
        super().__init__(Blocking(http, sleep), policy)
        self.datasets = Datasets(self._transport, policy)
        self.models = Models(self._transport, policy)
        self.jobs = Jobs(self._transport, policy)

    def close(self) -> None:
        """Close the connections."""
        self._transport.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncFoxhound(Service[Awaiting]):
    """An asynchronous client, with the attributes of `Foxhound`. Files are read and written on the event loop."""

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = SILENCE_S,
        retry_for_s: float = 120.0,
        first_answer_s: float = 2.0,
        on_retry: Callable[[str], None] | None = None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Create a client, with the arguments of `Foxhound`; `sleep` defaults to `asyncio.sleep`."""
        self.url = _url(base_url)
        http = httpx.AsyncClient(**_options(self.url, api_key, timeout_s), transport=transport)
        policy = Policy(self.url, retry_for_s, first_answer_s, on_retry or (lambda _: None))
        super().__init__(Awaiting(http, sleep), policy)
        self.datasets = Datasets(self._transport, policy)
        self.models = Models(self._transport, policy)
        self.jobs = Jobs(self._transport, policy)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def is_url(text: str) -> bool:
    """Return whether a text is an HTTP URL without a query."""
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and not url.query


def _url(base_url: str | None) -> str:
    url = base_url or os.environ.get("FOXHOUND_URL") or DEFAULT_URL
    if not is_url(url):
        raise FoxhoundError("The URL of the service must be http://host:port or https://host.")
    return url.rstrip("/")


def _options(url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Return the arguments of httpx's clients."""
    key = api_key or os.environ.get("FOXHOUND_API_KEY")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise FoxhoundError("The API key has characters that no key has. Copy it again.")
    headers = {} if not key else {"Authorization": f"Bearer {key}"}
    return {"base_url": url, "headers": headers, "timeout": httpx.Timeout(timeout_s, connect=CONNECT_S)}
