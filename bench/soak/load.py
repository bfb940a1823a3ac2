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

# What is asked for, and how often in a hundred.
KINDS = {"generate": 40, "leave": 20, "clip": 12, "classify": 12, "bad": 16}


@dataclass
class Tally:
    """How requests ended, by kind: a status, `left` (by the client, on purpose), or `unanswered`."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, kind: str, outcome: str) -> None:
        """Count one."""
        self.counts[kind, outcome] += 1


async def run_clients(url: str, num_clients: int, seconds: float, tally: Tally) -> None:
    """Send until the time is over, then wait for the last answers."""
    ends_at = time.monotonic() + seconds
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_S) as http:
        await asyncio.gather(*(_client(http, random.Random(index), ends_at, tally) for index in range(num_clients)))


async def _client(http: httpx.AsyncClient, rng: random.Random, ends_at: float, tally: Tally) -> None:
    while time.monotonic() < ends_at:
        [kind] = rng.choices(list(KINDS), list(KINDS.values()))
        tally.add(kind, await _ask(http, rng, kind))


async def _ask(http: httpx.AsyncClient, rng: random.Random, kind: str) -> str:
    request = http.build_request("POST", **_request(rng, kind))
    try:
        if kind != "leave":
            return str((await http.send(request)).status_code)
        try:
            async with asyncio.timeout(rng.uniform(0.02, 1.5)):
                return str((await http.send(request)).status_code)
        except TimeoutError:
            return "left"
    except httpx.HTTPError:
        return "unanswered"


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
