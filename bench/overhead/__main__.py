"""`python -m bench.overhead`: a table and one line of JSON; 1 if the target is missed.

The same images by turns: as a dataset job of a served node, worker included, and as requests to an engine in this
process, which draws and decodes them and does nothing else. Whoever does not run at a time is idle. A machine's speed
wanders from minute to minute: each job is compared with the engine before and after it, and the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from app.engine.diffusion.runner import cost_of
from app.engine.engine import Engine
from app.engine.request import Priority
from app.image_spec import ImageSpec
from app.modelpacks.pack import demo_pack_folder
from app.services.inference.loaded import DIFFUSION
from app.services.inference.loading import ModelChoice, start_inference
from bench.generate.pipeline import Subject
from bench.generate.servers import foxhound, running, versions

TARGET = 0.10
CLASSES = {"fox": "a watercolor painting of a red fox", "dog": "a watercolor painting of a golden retriever"}
STEPS = 20
GUIDANCE = 7.5
SCHEDULER = "ddim"
# The job tells its own times, so it is asked seldom: ten answers a second cost the node 10 ms of a core an image.
POLL_S = 1.0


def job_s(http: httpx.Client, name: str, per_class: int) -> float:
    """Make a dataset and return the seconds from its job's first moment to its last, as the job tells them."""
    classes = [{"name": label, "prompts": [prompt]} for label, prompt in CLASSES.items()]
    generation = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "scheduler": SCHEDULER}
    body = {"name": name, "seed": 0, "classes": classes, "train_per_class": per_class, "test_per_class": 0}
    answer = http.post("/datasets", json={**body, "generation": generation}).raise_for_status().json()
    while True:
        job: dict[str, Any] = http.get(f"/jobs/{answer['job_id']}").raise_for_status().json()
        if job["finished_at"]:
            break
        time.sleep(POLL_S)
    if job["status"] != "succeeded":
        raise RuntimeError(f"the job ended as {job['status']}: {job['error']}")
    return _seconds(job["finished_at"]) - _seconds(job["started_at"])


def engine_s(engine: Engine, per_class: int) -> float:
    """Draw as many images of the same prompts and steps with the engine alone, and return how long that took."""
    payloads = [
        ImageSpec(
            prompt,
            guidance_scale=GUIDANCE,
            num_inference_steps=STEPS,
            height=128,
            width=128,
            seed=seed,
            scheduler=SCHEDULER,
        )
        for prompt in CLASSES.values()
        for seed in range(per_class)
    ]
    began = time.monotonic()
    futures = [
        engine.submit(DIFFUSION, payload, priority=Priority.BACKGROUND, cost=cost_of(payload)) for payload in payloads
    ]
    for future in futures:
        future.result()
    return time.monotonic() - began


def start_engine(threads: int, models_dir: Path) -> Engine:
    """Start the engine that a node has, on the demo pack, and wait until it can draw."""
    choice = ModelChoice("demo", models_dir, {}, "cpu", "auto", None, False, False, threads, max_queue_size=1_000)
    engine, _ = start_inference(choice)
    while engine.status()[DIFFUSION].state == "loading":
        time.sleep(POLL_S)
    return engine


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def measure(per_class: int, repeats: int, threads: int) -> dict[str, Any]:
    """Take turns, `repeats` >= 1 jobs with the engine's turns around them, and return seconds an image."""
    jobs, direct = [], []
    with tempfile.TemporaryDirectory() as folder:
        engine = start_engine(threads, Path(folder))
        with (
            running(foxhound(), Subject(demo_pack_folder(), "cpu", threads), Path(folder) / "node.log") as node,
            httpx.Client(base_url=node.url, timeout=60) as http,
        ):
            job_s(http, "warm-up", 4)
            engine_s(engine, 4)
            direct.append(engine_s(engine, per_class))
            for turn in range(repeats):
                print(f"turn {turn + 1} of {repeats}", file=sys.stderr)
                jobs.append(job_s(http, f"turn-{turn}", per_class))
                direct.append(engine_s(engine, per_class))
        engine.close()
    count = per_class * len(CLASSES)
    return {"job": [taken / count for taken in jobs], "engine": [taken / count for taken in direct]}


def overhead_of(jobs: Sequence[float], engine: Sequence[float]) -> float:
    """Return the median of the jobs' extra time, as a share of the engine's mean before and after each."""
    return statistics.median(
        2 * job / (before + after) - 1 for job, before, after in zip(jobs, engine, engine[1:], strict=False)
    )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description=__doc__)
    parser.add_argument("--per-class", type=int, default=32, help="images of each of the two classes (default: 32)")
    parser.add_argument("--repeats", type=int, default=7, help="jobs (default: 7)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of both engines")
    arguments = parser.parse_args()
    measured = measure(arguments.per_class, arguments.repeats, arguments.threads)
    job, engine = statistics.median(measured["job"]), statistics.median(measured["engine"])
    overhead = overhead_of(measured["job"], measured["engine"])
    print("| | ms an image |\n| --- | --- |")
    print(f"| the engine alone | {engine * 1000:.1f} |\n| as a dataset job | {job * 1000:.1f} |")
    print(f"| overhead | {overhead:.1%} (target: at most {TARGET:.0%}) |")
    facts = {"bench": "overhead", "steps": STEPS, "images": 2 * arguments.per_class, "threads": arguments.threads}
    print(json.dumps({**facts, "versions": versions(), "s_an_image": measured, "overhead": round(overhead, 4)}))
    return int(overhead > TARGET)


if __name__ == "__main__":
    sys.exit(main())
