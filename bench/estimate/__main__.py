"""`python -m bench.estimate`: a table and one line of JSON; 1 if an estimate is not within a factor of 2.

One node on the demo pack. Each recipe is asked with `dry_run` and then made; the time counts from the accepted request
to the job's end, as the job tells it. The first half of the runs has the node for itself; beside the second half, other
callers' dataset jobs and interactive clients run all the time. The first recipe is estimated from the calibration
alone, before the node has drawn anything.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from app.modelpacks.pack import demo_pack_folder
from bench.generate.pipeline import Subject
from bench.generate.servers import foxhound, running, versions

TARGET = 2.0
POLL_S = 0.5
# Between two interactive requests of one client, as of a person who looks at the picture.
THINK_S = 0.5
# Images of the job beside until the first recipe: by then the shares of the latest 20 s are those of this load.
SETTLED_IMAGES = 64
PROMPTS = {"fox": "a watercolor painting of a red fox", "dog": "a watercolor painting of a golden retriever"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """A dataset of two classes.

    Attributes:
        name: What it is called in the table.
        per_class: Images of each class.
        steps: Denoising steps of an image.
        side: Pixels of a side.
        is_filtered: Whether CLIP has to agree with each image.
    """

    name: str
    per_class: int
    steps: int
    side: int
    is_filtered: bool = False

    def body(self, name: str) -> dict[str, Any]:
        """Return the body of `POST /datasets`."""
        classes = [{"name": label, "prompts": [prompt]} for label, prompt in PROMPTS.items()]
        generation = {"num_inference_steps": self.steps, "width": self.side, "height": self.side}
        body = {"name": name, "seed": 0, "classes": classes, "train_per_class": self.per_class, "test_per_class": 0}
        return {**body, "generation": generation, "filter": {} if self.is_filtered else None}


RECIPES = (
    Recipe("small, 128 px", 8, 8, 128),
    Recipe("small, 64 px", 8, 8, 64),
    Recipe("small, 192 px", 2, 50, 192),
    Recipe("50 steps, 64 px", 8, 50, 64),
    Recipe("filter, 128 px", 8, 8, 128, is_filtered=True),
    Recipe("large, 64 px", 40, 8, 64),
    Recipe("large, filter, 64 px", 40, 8, 64, is_filtered=True),
)
BESIDE = Recipe("beside", 2_000, 20, 128)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One estimate and what came of it; times in seconds."""

    recipe: str
    load: str
    basis: str
    estimated_s: float
    actual_s: float
    load_average: float

    @property
    def ratio(self) -> float:
        """The estimate as a multiple of the actual time."""
        return self.estimated_s / self.actual_s


def run(http: httpx.Client, recipe: Recipe, load: str) -> Outcome:
    """Estimate a recipe, make it, and return both times."""
    body = recipe.body(f"{recipe.name}-{load}".replace(", ", "-").replace(" ", "-"))
    plan = http.post("/datasets?dry_run=true", json=body).raise_for_status().json()
    created = http.post("/datasets", json=body).raise_for_status().json()
    job = _ended(http, created["job_id"])
    if job["status"] != "succeeded":
        raise RuntimeError(f"the job ended as {job['status']}: {job['error']}")
    actual = _seconds(job["finished_at"]) - _seconds(job["created_at"])
    found = Outcome(recipe.name, load, plan["estimate_basis"], plan["estimated_seconds"], actual, os.getloadavg()[0])
    print(f"{found}\n  {plan['estimate']} {' '.join(plan['assumptions'])}", file=sys.stderr)
    return found


def _ended(http: httpx.Client, job_id: str) -> dict[str, Any]:
    while True:
        job: dict[str, Any] = http.get(f"/jobs/{job_id}").raise_for_status().json()
        if job["finished_at"]:
            return job
        time.sleep(POLL_S)


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@contextmanager
def loaded(url: str, clients: int) -> Iterator[None]:
    """Keep a dataset job and interactive clients running until the block ends."""
    is_over = threading.Event()
    with httpx.Client(base_url=url, timeout=120) as http:
        job = http.post("/datasets", json=BESIDE.body("beside")).raise_for_status().json()
        threads = [threading.Thread(target=_interactive, args=(url, number, is_over)) for number in range(clients)]
        for thread in threads:
            thread.start()
        while http.get(f"/jobs/{job['job_id']}").json()["progress"]["done"] < SETTLED_IMAGES:
            time.sleep(POLL_S)
        try:
            yield
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
            http.post(f"/jobs/{job['job_id']}/cancel")
            _ended(http, job["job_id"])


def _interactive(url: str, number: int, is_over: threading.Event) -> None:
    body = {"prompt": PROMPTS["fox"], "num_inference_steps": 20, "seed": number}
    with httpx.Client(base_url=url, timeout=120, headers={"Accept": "image/png"}) as http:
        while not is_over.wait(THINK_S):
            http.post("/generate", json=body).raise_for_status()


def measure(recipes: tuple[Recipe, ...], clients: int, threads: int) -> list[Outcome]:
    """Run every recipe on an idle and on a loaded node."""
    with tempfile.TemporaryDirectory() as folder:
        subject = Subject(demo_pack_folder(), "cpu", threads)
        with (
            running(foxhound(), subject, Path(folder) / "node.log") as node,
            httpx.Client(base_url=node.url, timeout=120) as http,
        ):
            found = [run(http, recipe, "idle") for recipe in recipes]
            with loaded(node.url, clients):
                return found + [run(http, recipe, "loaded") for recipe in recipes]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.estimate", description=__doc__)
    parser.add_argument("--clients", type=int, default=1, help="interactive clients beside it (default: 1)")
    parser.add_argument("--recipes", type=int, default=len(RECIPES), help="only the first so many")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of the engine")
    arguments = parser.parse_args()
    found = measure(RECIPES[: arguments.recipes], arguments.clients, arguments.threads)
    print("| recipe | node | basis | estimate s | actual s | ratio | load average |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for one in found:
        times = f"{one.estimated_s:.1f} | {one.actual_s:.1f} | {one.ratio:.2f} | {one.load_average:.1f}"
        print(f"| {one.recipe} | {one.load} | {one.basis} | {times} |")
    worst = max(max(one.ratio, 1 / one.ratio) for one in found)
    print(f"\nworst factor: {worst:.2f} (target: at most {TARGET:g})")
    runs = [
        {
            "recipe": one.recipe,
            "node": one.load,
            "basis": one.basis,
            "estimated_s": one.estimated_s,
            "actual_s": round(one.actual_s, 2),
            "ratio": round(one.ratio, 3),
            "load_average": round(one.load_average, 1),
        }
        for one in found
    ]
    print(json.dumps({"bench": "estimate", "versions": versions(), "worst_factor": round(worst, 3), "runs": runs}))
    return int(worst > TARGET)


if __name__ == "__main__":
    sys.exit(main())
