"""What is asked, and when: seeded, so that every server gets the same. Knows no servers and no models."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Traffic = Literal["identical", "mixed"]

STEPS = (10, 20, 50)
GUIDANCE = (1.0, 4.0, 7.5)
SCHEDULERS = ("pndm", "ddim", "euler", "dpmpp_2m")
PROMPTS = (
    "a watercolor painting of a red fox",
    "a photo of a dog in the snow",
    "a pencil drawing of a cat",
    "an oil painting of a rabbit in a meadow",
    "a pixel art horse",
    "a boat on a lake",
    "a house at night",
    "a tree in autumn",
)


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One `POST /generate`; the fields have the names of the API."""

    prompt: str
    num_inference_steps: int = 20
    guidance_scale: float = 7.5
    scheduler: str = "dpmpp_2m"
    seed: int = 0

    @property
    def alike(self) -> tuple[int, float, str]:
        """What requests must have in common to share a call of the pipeline."""
        return self.num_inference_steps, self.guidance_scale, self.scheduler

    def to_json(self) -> dict[str, Any]:
        """Return the body."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> ImageRequest:
        """Read a body that `to_json` wrote."""
        return cls(**body)


def make_trace(traffic: Traffic, count: int, seed: int) -> list[ImageRequest]:
    """Make `count` requests.

    Identical traffic differs in prompt and seed alone. Mixed traffic goes through all combinations of steps, guidance
    and noise scheduler in a random order before one comes again, so that traces of 36 ask for the same work.

    Args:
        traffic: Its kind.
        count: Requests, >= 1.
        seed: Another one gives another order, other prompts and other images.
    """
    rng = random.Random(f"{traffic} {seed}")
    requests = [ImageRequest(rng.choice(PROMPTS), seed=rng.randrange(2**32)) for _ in range(count)]
    if traffic == "identical":
        return requests
    combinations = list(itertools.product(STEPS, GUIDANCE, SCHEDULERS))
    mixed = []
    for index, request in enumerate(requests):
        if index % len(combinations) == 0:
            rng.shuffle(combinations)
        steps, guidance, scheduler = combinations[index % len(combinations)]
        mixed.append(replace(request, num_inference_steps=steps, guidance_scale=guidance, scheduler=scheduler))
    return mixed


def arrival_times(count: int, rate: float, seed: int) -> list[float]:
    """Draw the seconds at which requests arrive: a Poisson process of `rate` a second, beginning with one at 0.

    The gaps are scaled so that their mean is exactly 1 / rate: a short trace must not be of another load by chance.
    """
    rng = random.Random(f"arrivals {seed}")
    gaps = [rng.expovariate(1.0) for _ in range(count - 1)]
    scale = (count - 1) / (rate * sum(gaps)) if gaps else 0.0
    return [0.0, *(scale * reached for reached in itertools.accumulate(gaps))]


def group_alike(requests: Sequence[ImageRequest]) -> list[list[int]]:
    """Group the indices of requests that can share a call of the pipeline, in the order of their first."""
    groups: dict[tuple[int, float, str], list[int]] = {}
    for index, request in enumerate(requests):
        groups.setdefault(request.alike, []).append(index)
    return list(groups.values())
