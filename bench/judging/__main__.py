"""`python -m bench.judging [--quick]`: a table and one line of JSON; progress goes to standard error."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.judging import forward, material, servers
from bench.judging.traffic import Load, Question, drive, percentile_ms

CLIENTS = 16
LITSERVE_SETTINGS = [(1, 0.0), (8, 0.0), (16, 0.0), (16, 0.01), (16, 0.05)]
INFINITY_SETTINGS = [16, 32]


@dataclass
class Case:
    """One thing that is asked, of ours and of the peers.

    Attributes:
        endpoint: LitServe's path.
        questions: For ours and LitServe.
        infinity_questions: For infinity; none where it has no such model.
        bare_per_second: Images a second of the forward alone.
        loads: What each server showed, run by run.
    """

    name: str
    endpoint: str
    questions: list[Question]
    infinity_questions: list[Question]
    bare_per_second: float
    loads: dict[str, list[Load]] = field(default_factory=dict)

    def questions_for(self, server: str) -> list[Question]:
        """Return the questions that a server understands."""
        return self.infinity_questions if server.startswith("infinity") else self.questions


class Bench:
    """Runs every case."""

    def __init__(self, args: argparse.Namespace, workdir: Path) -> None:
        """Take the options and a folder for everything that is written."""
        self._args = args
        self._workdir = workdir
        self._models = workdir / "models"
        self._seconds = 3.0 if args.quick else 8.0
        self._repeats = 1 if args.quick else 3
        self.notes: list[str] = []

    def cases(self) -> list[Case]:
        """Make weights, pictures and bodies, and time the forwards alone."""
        self._models.mkdir(parents=True, exist_ok=True)
        material.write_models(self._models)
        images = material.draw_images()
        makers = {
            "classify": lambda: self._classify_case(images),
            "clip-repeated": lambda: self._clip_case(images, unique=False),
            "clip-unique": lambda: self._clip_case(images, unique=True),
        }
        return [makers[name]() for name in self._args.only or makers]

    def _classify_case(self, images: list[bytes]) -> Case:
        bare = forward.classify_forward(self._models)
        return Case("classify", "classify", material.classify_questions(images), [], forward.per_second(bare))

    def _clip_case(self, images: list[bytes], *, unique: bool) -> Case:
        # More than any server answers while it is measured, so that unique sets are.
        labels = material.label_sets(unique=unique, count=1_500 if unique else 400)
        bare = forward.clip_forward(self._models, labels if unique else None)
        infinity = [] if self._args.without_infinity else material.infinity_questions(images, labels)
        return Case(
            f"clip-score, label sets {'unique' if unique else 'repeated'}",
            "clip-score",
            material.clip_questions(images, labels),
            infinity,
            forward.per_second(bare),
        )

    def measure(self, cases: list[Case]) -> None:
        """Tune the peers, then measure all servers of a case in turns."""
        with contextlib.ExitStack() as stack:
            ours = servers.start_ours(self._models, self._workdir, self._args.threads)
            stack.callback(ours.stop)
            for case in cases:
                with contextlib.ExitStack() as peers:
                    running = {"ours": ours, **self._tuned_peers(case, peers)}
                    self._interleave(case, running)

    def _interleave(self, case: Case, running: dict[str, servers.Server]) -> None:
        for repeat in range(self._repeats):
            for name, server in running.items():
                # another part of the questions each time: what was unique must not be known already
                asked = case.questions_for(name)
                first = len(asked) * repeat // self._repeats
                load = self._drive(server, asked[first:] + asked[:first], self._seconds)
                case.loads.setdefault(name, []).append(load)
                progress(f"{case.name}: {name}: {load.per_second:.1f}/s")

    def _tuned_peers(self, case: Case, stack: contextlib.ExitStack) -> dict[str, servers.Server]:
        """Start each peer with the settings that were best in a short run."""
        starts: dict[str, list[Any]] = {
            "litserve": [
                (f"litserve {batch}/{timeout_s:g}s", partial(self._litserve, case.endpoint, batch, timeout_s))
                for batch, timeout_s in (LITSERVE_SETTINGS[-2:] if self._args.quick else LITSERVE_SETTINGS)
            ]
        }
        if case.infinity_questions:
            starts["infinity"] = [(f"infinity {batch}", partial(self._infinity, batch)) for batch in INFINITY_SETTINGS]
        best = {}
        for peer, options in starts.items():
            try:
                name, start = max(options, key=lambda option: self._try(case, *option))
                best[name] = start()
                stack.callback(best[name].stop)
            except (RuntimeError, OSError) as error:
                self.notes.append(f"{case.name}: {peer} could not be measured: {error}")
        return best

    def _try(self, case: Case, name: str, start: Any) -> float:
        server = start()
        try:
            load = self._drive(server, case.questions_for(name), self._seconds / 2)
        finally:
            server.stop()
        progress(f"{case.name}: tuning: {name}: {load.per_second:.1f}/s")
        return load.per_second

    def _drive(self, server: servers.Server, questions: list[Question], seconds: float) -> Load:
        with server.awake():
            drive(server.port, questions[-CLIENTS:], clients=CLIENTS, seconds=0.5)
            return drive(server.port, questions, clients=CLIENTS, seconds=seconds)

    def _litserve(self, endpoint: str, batch: int, timeout_s: float) -> servers.Server:
        python = servers.peer_python("litserve", self._args.peers, shares_torch=True)
        return servers.start_litserve(python, endpoint, batch, timeout_s, self._models, self._args.threads)

    def _infinity(self, batch: int) -> servers.Server:
        python = servers.peer_python("infinity", self._args.peers, shares_torch=False)
        return servers.start_infinity(python, batch, self._models, self._args.threads)


def summary(case: Case) -> dict[str, Any]:
    """Return a case's figures; targets are met where `peer_ratio` is >= 1 (1.3 for repeated label sets)."""
    rows = {
        name: {
            "per_second": round(statistics.median(load.per_second for load in loads), 2),
            "p50_ms": round(percentile_ms(loads, 50), 1),
            "p99_ms": round(percentile_ms(loads, 99), 1),
        }
        for name, loads in case.loads.items()
    }
    ours, peers = rows["ours"], [row for name, row in rows.items() if name != "ours"]
    best = max(peers, key=lambda row: row["per_second"], default=None)
    return {
        "case": case.name,
        "bare_forward_per_second": round(case.bare_per_second, 2),
        "overhead_percent": round(100 * (case.bare_per_second / ours["per_second"] - 1), 1),
        "peer_ratio": round(ours["per_second"] / best["per_second"], 3) if best else None,
        "p99_ratio": round(ours["p99_ms"] / best["p99_ms"], 3) if best else None,
        "servers": rows,
    }


def progress(line: str) -> None:
    """Tell how far it is."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.judging", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short repeat and a shorter sweep")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of every server")
    parser.add_argument("--peers", type=Path, default=Path("build/peers"), help="folder of the peers' environments")
    parser.add_argument("--without-infinity", action="store_true", help="leave infinity and its 5 GB out")
    parser.add_argument("--only", action="append", choices=["classify", "clip-repeated", "clip-unique"])
    args = parser.parse_args()
    args.peers = args.peers.absolute()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        cases = bench.cases()
        bench.measure(cases)
    results = [summary(case) for case in cases]
    print(f"{'case':34} {'server':22} {'req/s':>8} {'p50 ms':>8} {'p99 ms':>8}")
    for result in results:
        print(f"{result['case']:34} {'(the forward alone)':22} {result['bare_forward_per_second']:8.2f}")
        for name, row in result["servers"].items():
            print(f"{'':34} {name:22} {row['per_second']:8.2f} {row['p50_ms']:8.1f} {row['p99_ms']:8.1f}")
    print(json.dumps({"threads": args.threads, "torch": torch.__version__, "cases": results, "notes": bench.notes}))


if __name__ == "__main__":
    main()
