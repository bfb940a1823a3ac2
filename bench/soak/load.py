"""The clients: each sends one random request after the other and says how each ended.

Knows HTTP and nothing of the node's inside. Runs in one event loop.
"""

from __future__ import annotations

import asyncio
import io
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

PATIENCE_S = 120.0
SCHEDULERS = ("pndm", "ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc")

ROUTES = ("/generate", "/clip-score", "/classify")

# What is asked for, and how often in a hundred.
KINDS = {"generate": 40, "leave": 20, "clip": 12, "classify": 12, "bad": 16}


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


async def run_clients(url: str, num_clients: int, seconds: float, tally: Tally) -> None:
    """Send until the time is over, then wait for the last answers."""
    ends_at = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
        await asyncio.gather(*(_client(http, random.Random(index), ends_at, tally) for index in range(num_clients)))


async def _client(http: httpx.AsyncClient, rng: random.Random, ends_at: float, tally: Tally) -> None:
    while time.monotonic() < ends_at:
        [kind] = rng.choices(list(KINDS), list(KINDS.values()))
        content = _request(rng, kind)
        tally.add(kind, content["url"], *await (_leave if kind == "leave" else _ask)(http, rng, content))


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
    request = http.build_request("POST", content["url"], json={**content["json"], "num_images_per_prompt": 1})
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


def _request(rng: random.Random, kind: str) -> dict[str, Any]:
    if kind in ("generate", "leave"):
        return {"url": "/generate", "json": _generation(rng)}
    if kind == "clip":
        labels = rng.sample(["a red fox", "a dog", "a cat", "a rabbit in the snow"], rng.randint(1, 4))
        return {"url": "/clip-score", "files": {"image": _picture(rng)}, "data": {"labels": labels}}
    if kind == "classify":
        return {"url": "/classify", "files": {"image": _picture(rng)}}
    return _bad_request(rng)


def _generation(rng: random.Random) -> dict[str, Any]:
    side = rng.choice([64, 128, 128, 128])
    return {
        "prompt": rng.choice(["a red fox", "a golden retriever", f"a cat number {rng.random()}", "x " * 200]),
        "negative_prompt": rng.choice(["", "snow"]),
        "num_inference_steps": rng.choice([1, 5, 10, 20]),
        "guidance_scale": rng.choice([1.0, 4.0, 7.5]),
        "scheduler": rng.choice(SCHEDULERS),
        "num_images_per_prompt": rng.choice([1, 1, 1, 2, 4]),
        "seed": rng.randrange(2**53),
        "height": side,
        "width": side,
    }


def _bad_request(rng: random.Random) -> dict[str, Any]:
    jpeg = _picture(rng)
    return rng.choice(
        [
            {"url": "/generate", "content": b"{", "headers": {"content-type": "application/json"}},
            {"url": "/generate", "json": {"prompt": "a fox", "height": 123}},
            {"url": "/generate", "json": {"prompt": "a fox", "width": 10**9, "height": 10**9}},
            {"url": "/generate", "json": {"prompt": "a" * 10**6}},
            {"url": "/generate", "json": {"prompt": "a fox", "guidance_scale": "much"}},
            {"url": "/classify", "files": {"image": jpeg[: len(jpeg) // 3]}},
            {"url": "/classify", "files": {"image": b"\0" * 10_000}},
            {"url": "/clip-score", "files": {"image": jpeg}, "data": {"labels": [""]}},
            {"url": "/no-such-path", "json": {}},
        ]
    )


def _picture(rng: random.Random) -> bytes:
    sides = rng.choice([(64, 64), (500, 30), (640, 480), (1, 1)])
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (*sides, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, rng.choice(["JPEG", "PNG"]))
    return buffer.getvalue()
