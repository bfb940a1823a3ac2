"""The requests of a soak: right, wrong, without a key that suffices, over a bound, and hostile.

Knows HTTP and nothing of the node's inside. Each is made at random from the caller's generator, so that a seed repeats
them. Runs in the clients' event loop.
"""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from bench.hostile import payloads

SCHEDULERS = ("pndm", "ddim", "euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "unipc")

# A word of every prompt, which nothing but the answers may repeat.
MARK = "quokkaberry"

# What is asked for, and how often in a hundred.
KINDS = {"generate": 34, "leave": 18, "clip": 10, "classify": 10, "bad": 12, "capped": 8, "stranger": 5, "hostile": 3}


@dataclass(frozen=True)
class Keys:
    """The API keys of the load.

    Attributes:
        good: May do what the clients do.
        capped: Has the scope `generate`, and bounds that the load exceeds.
        reader: Has the scope `read` alone.
    """

    good: str
    capped: str
    reader: str


def make_request(rng: random.Random, kind: str, keys: Keys) -> dict[str, Any]:
    """Return the arguments of `httpx.Client.build_request` for a POST of a kind."""
    makers: dict[str, Callable[[random.Random], dict[str, Any]]] = {
        "generate": _generation,
        "leave": _generation,
        "capped": _generation,
        "stranger": _generation,
        "clip": _scoring,
        "classify": lambda rng: {"url": "/classify", "files": {"image": _picture(rng)}},
        "bad": _bad,
        "hostile": _hostile,
    }
    content = makers[kind](rng)
    key = {"capped": keys.capped, "stranger": rng.choice(["", keys.good[:-1], keys.reader])}.get(kind, keys.good)
    return {**content, "headers": {**content.get("headers", {}), **({"x-api-key": key} if key else {})}}


def _scoring(rng: random.Random) -> dict[str, Any]:
    labels = rng.sample([f"a red fox {MARK}", "a dog", "a cat", "a rabbit in the snow"], rng.randint(1, 4))
    return {"url": "/clip-score", "files": {"image": _picture(rng)}, "data": {"labels": labels}}


def _generation(rng: random.Random) -> dict[str, Any]:
    side = rng.choice([64, 128, 128, 128])
    prompt = rng.choice(["a red fox", "a golden retriever", f"a cat number {rng.random()}", "x " * 200])
    recipe = {
        "prompt": f"{MARK} {prompt}",
        "negative_prompt": rng.choice(["", "snow"]),
        "num_inference_steps": rng.choice([1, 5, 10, 20]),
        "guidance_scale": rng.choice([1.0, 4.0, 7.5]),
        "scheduler": rng.choice(SCHEDULERS),
        "num_images_per_prompt": rng.choice([1, 1, 1, 2, 4]),
        "seed": rng.randrange(2**53),
        "height": side,
        "width": side,
    }
    return {"url": "/generate", "json": recipe}


def _bad(rng: random.Random) -> dict[str, Any]:
    jpeg = _picture(rng)
    return rng.choice(
        [
            {"url": "/generate", "content": b"{", "headers": {"content-type": "application/json"}},
            {"url": "/generate", "json": {"prompt": f"a fox {MARK}", "height": 123}},
            {"url": "/generate", "json": {"prompt": "a fox", "width": 10**9, "height": 10**9}},
            {"url": "/generate", "json": {"prompt": MARK * 50_000}},
            {"url": "/generate", "json": {"prompt": "a fox", "guidance_scale": "much"}},
            {"url": "/classify", "files": {"image": jpeg[: len(jpeg) // 3]}},
            {"url": "/classify", "files": {"image": b"\0" * 10_000}},
            {"url": "/clip-score", "files": {"image": jpeg}, "data": {"labels": [""]}},
            {"url": "/no-such-path", "json": {}},
        ]
    )


def _hostile(rng: random.Random) -> dict[str, Any]:
    """Return one of the attacks of `bench.hostile` that are a request."""
    kind = rng.choice([*HOSTILE_JSON, *HOSTILE_FILES])
    if kind in HOSTILE_JSON:
        return {"url": "/generate", "content": _made(kind), "headers": {"content-type": "application/json"}}
    return {"url": "/classify", "files": {"image": _made(kind)}}


HOSTILE_JSON: dict[str, Callable[[], bytes]] = {
    "unknown members": payloads.unknown_members,
    "empty arrays": functools.partial(payloads.empty_arrays, 500_000),
}
HOSTILE_FILES: dict[str, Callable[[], bytes]] = {
    "fill bytes": payloads.fill_bytes,
    "empty segments": payloads.empty_segments,
    "empty chunks": payloads.empty_chunks,
    "large picture": functools.partial(payloads.large_picture, 0),
}


def make_hostile() -> None:
    """Make the bodies of all attacks, so that no client stands still for it later."""
    for kind in [*HOSTILE_JSON, *HOSTILE_FILES]:
        _made(kind)


@functools.cache
def _made(kind: str) -> bytes:
    return {**HOSTILE_JSON, **HOSTILE_FILES}[kind]()


def _picture(rng: random.Random) -> bytes:
    sides = rng.choice([(64, 64), (500, 30), (640, 480), (1, 1)])
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (*sides, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, rng.choice(["JPEG", "PNG"]))
    return buffer.getvalue()
