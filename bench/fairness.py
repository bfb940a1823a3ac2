"""`python -m bench.fairness`: how two callers with 1 and 20 requests share an engine; a table and one line of JSON.

The engine of a node on the demo pack, in this process, without HTTP. Each caller sends the next request when one ends.
Four cases take turns, because the speed of a machine wanders: both as callers of their own; both as one caller, which
is served in the order of submission, as everybody was before callers shared; and each of the two alone. A caller with
half of the device is half as fast as alone; where rows share what a step costs anyway, both are faster than that.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.engine.diffusion.runner import cost_of
from app.engine.engine import Engine
from app.image_spec import ImageSpec
from app.services.inference.loaded import DIFFUSION
from app.services.inference.loading import ModelChoice, start_inference

MANY, ONE = 20, 1
# How far a caller may be below half of its speed alone, as a part of that half.
TOLERANCE = 0.10
POLL_S = 0.2
SPEC = ImageSpec(
    "a watercolor painting of a red fox",
    guidance_scale=7.5,
    num_inference_steps=20,
    height=128,
    width=128,
    seed=0,
    scheduler="ddim",
)


@dataclass
class Client:
    """Keeps so many requests at the engine; its callbacks run on the device thread.

    Attributes:
        num_row_steps: Rows that took a step.
        took_s: Seconds of each request from its submission to its image.
    """

    engine: Engine
    caller: str
    concurrency: int
    num_row_steps: int = 0
    took_s: list[float] = field(default_factory=list)
    is_over: bool = False
    running: dict[int, Future[Any]] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def begin(self) -> None:
        """Send the first requests."""
        for _ in range(self.concurrency):
            self._send()

    def reset(self) -> None:
        """Forget what was counted so far."""
        self.num_row_steps, self.took_s = 0, []

    def end(self) -> None:
        """Send no more, and cancel the rest."""
        self.is_over = True
        for future in list(self.running.values()):
            future.cancel()

    def _send(self) -> None:
        number, sent_at = next(self.numbers), time.monotonic()
        cost = cost_of(SPEC)

        def on_step(_done: int, _steps: int) -> None:
            self.num_row_steps += cost.rows

        def on_end(future: Future[Any]) -> None:
            self.running.pop(number, None)
            if not future.cancelled():
                self.took_s.append(time.monotonic() - sent_at)
            if not self.is_over:
                self._send()

        future = self.engine.submit(DIFFUSION, SPEC, cost=cost, on_step=on_step, caller=self.caller)
        self.running[number] = future
        future.add_done_callback(on_end)


@dataclass(frozen=True)
class Measured:
    """One client in one round of a case."""

    row_steps_per_s: float
    images_per_s: float
    median_s: float


def measure(clients: Sequence[Client], seconds: float) -> list[Measured]:
    """Let the clients run for so long, after as many images as a queue holds have warmed up."""
    for client in clients:
        client.begin()
    time.sleep(seconds / 4)
    for client in clients:
        client.reset()
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    found = [
        Measured(
            client.num_row_steps / took,
            len(client.took_s) / took,
            statistics.median(client.took_s) if client.took_s else float("nan"),
        )
        for client in clients
    ]
    for client in clients:
        client.end()
    while any(clients[0].engine.in_flight().values()):
        time.sleep(POLL_S)
    return found


def cases(engine: Engine) -> dict[str, list[Client]]:
    """Return the clients of each case, new ones."""
    return {
        "two callers": [Client(engine, "key:many", MANY), Client(engine, "key:one", ONE)],
        "one caller": [Client(engine, "key:same", MANY), Client(engine, "key:same", ONE)],
        "many alone": [Client(engine, "key:many", MANY)],
        "one alone": [Client(engine, "key:one", ONE)],
    }


def start_engine(threads: int, models_dir: Path) -> Engine:
    """Start the engine that a node has, and wait until it can draw."""
    choice = ModelChoice("demo", models_dir, {}, "cpu", "auto", None, False, False, threads, max_queue_size=64)
    engine, _ = start_inference(choice)
    while engine.status()[DIFFUSION].state == "loading":
        time.sleep(POLL_S)
    return engine


def summarize(rounds: Sequence[dict[str, list[Measured]]]) -> dict[str, list[dict[str, float]]]:
    """Return for each case and client the medians over the rounds: of its rows in all steps, its speed, its waits.

    `of_alone` is the speed as a part of the same client's alone, in steps.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for case in rounds[0]:
        found[case] = []
        for client in range(len(rounds[0][case])):
            own = [one[case][client] for one in rounds]
            shares = [
                one[case][client].row_steps_per_s / sum(other.row_steps_per_s for other in one[case]) for one in rounds
            ]
            alone = "one alone" if client == 1 or case == "one alone" else "many alone"
            of_alone = [one[case][client].row_steps_per_s / one[alone][0].row_steps_per_s for one in rounds]
            found[case].append(
                {
                    "of_alone": round(statistics.median(of_alone), 3),
                    "share": round(statistics.median(shares), 3),
                    "row_steps_per_s": round(statistics.median(one.row_steps_per_s for one in own), 1),
                    "images_per_s": round(statistics.median(one.images_per_s for one in own), 3),
                    "median_s": round(statistics.median(one.median_s for one in own), 3),
                }
            )
    return found


def rows_of(figures: dict[str, list[dict[str, float]]]) -> list[tuple[str, ...]]:
    """Return the table's rows."""
    rows: list[tuple[str, ...]] = [
        ("case", "requests", "share of rows", "of its speed alone", "rows x steps / s", "images / s", "median s")
    ]
    for case, clients in figures.items():
        for position, client in enumerate(clients):
            concurrency = ONE if position == 1 or case == "one alone" else MANY
            names = ("share", "of_alone", "row_steps_per_s", "images_per_s", "median_s")
            rows.append((case, str(concurrency), *(str(client[name]) for name in names)))
    return rows


def main() -> None:
    """Measure, print, judge."""
    parser = argparse.ArgumentParser(prog="python -m bench.fairness", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="of all cases")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each case in a round")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of a forward")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = start_engine(args.threads, Path(folder))
        rounds = []
        for turn in range(args.rounds):
            print(f"round {turn + 1} of {args.rounds}", file=sys.stderr)
            rounds.append({case: measure(clients, args.seconds) for case, clients in cases(engine).items()})
        engine.close()
    figures = summarize(rounds)
    is_even = all(2 * client["of_alone"] >= 1 - TOLERANCE for client in figures["two callers"])
    print("\n".join("  ".join(cell.rjust(18) for cell in row) for row in rows_of(figures)))
    print(json.dumps({"figures": figures, "is_even": is_even, "threads": args.threads, "cores": os.cpu_count()}))
    if not is_even:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
