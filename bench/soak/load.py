"""The clients: each sends one random request after the other and says how each ended.

Knows HTTP and nothing of the node's inside. Runs in one event loop.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.soak.requests import KINDS, Keys, make_hostile, make_request

PATIENCE_S = 120.0
ROUTES = ("/generate", "/clip-score", "/classify")

# Hostile requests come from an address of their own, as a node charges refused large ones to their address.
HOSTILE_ADDRESS = "127.0.0.66"


@dataclass
class Tally:
    """How requests ended: a status, `left` (by the client, on purpose), or `unanswered`.

    Attributes:
        counts: By kind and outcome.
        by_route: By route, as the node's metrics name it, and outcome.
        images: Images in the answers.
    """

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    by_route: Counter[tuple[str, str]] = field(default_factory=Counter)
    images: int = 0

    def add(self, kind: str, url: str, outcome: str, images: int) -> None:
        """Count one."""
        self.counts[kind, outcome] += 1
        self.by_route[url if url in ROUTES else "none", outcome] += 1
        self.images += images


async def run_clients(url: str, num_clients: int, seconds: float, keys: Keys, tally: Tally) -> None:
    """Send until the time is over, then wait for the last answers."""
    make_hostile()
    ends_at = time.monotonic() + seconds
    elsewhere = httpx.AsyncHTTPTransport(local_address=HOSTILE_ADDRESS)
    async with (
        httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as good,
        httpx.AsyncClient(base_url=url, timeout=PATIENCE_S, transport=elsewhere) as hostile,
    ):
        senders = {kind: hostile if kind == "hostile" else good for kind in KINDS}
        rngs = [random.Random(index) for index in range(num_clients)]
        await asyncio.gather(*(_client(senders, rng, ends_at, keys, tally) for rng in rngs))


async def _client(
    senders: dict[str, httpx.AsyncClient], rng: random.Random, ends_at: float, keys: Keys, tally: Tally
) -> None:
    while time.monotonic() < ends_at:
        [kind] = rng.choices(list(KINDS), list(KINDS.values()))
        content = make_request(rng, kind, keys)
        tally.add(kind, content["url"], *await (_leave if kind == "leave" else _ask)(senders[kind], rng, content))


async def _ask(http: httpx.AsyncClient, _rng: random.Random, content: dict[str, Any]) -> tuple[str, int]:
    """Send a request; return its status and the images of the answer."""
    try:
        answer = await http.send(http.build_request("POST", **content))
    except httpx.HTTPError:
        return "unanswered", 0
    is_made = content["url"] == "/generate" and answer.status_code == 200
    return str(answer.status_code), len(answer.json()["images"]) if is_made else 0


async def _leave(http: httpx.AsyncClient, rng: random.Random, content: dict[str, Any]) -> tuple[str, int]:
    """Send a request for one image completely, and wait for the status for a moment only.

    A client that is cut off while it sends would leave open whether the node has the request.
    """
    request = http.build_request("POST", **{**content, "json": {**content["json"], "num_images_per_prompt": 1}})
    lines = [f"POST {request.url.path} HTTP/1.1", *(f"{name}: {value}" for name, value in request.headers.items())]
    reader, writer = await asyncio.open_connection(request.url.host, request.url.port)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + request.read())
        await writer.drain()
        async with asyncio.timeout(rng.uniform(0.02, 1.5)):
            status = (await reader.readline()).split()[1].decode()
            return status, int(status == "200")
    except TimeoutError:
        return "left", 0
    except (OSError, IndexError):
        return "unanswered", 0
    finally:
        writer.close()
