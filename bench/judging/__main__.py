"""The command line: parse, measure, print.

Progress goes to standard error; the tables and one line of JSON to standard output. A missed target is no error.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from bench.demo_pack.table import render
from bench.environments import PEERS, pinned_version
from bench.judging.cases import CASES, make_cases
from bench.judging.measure import FULL, QUICK, Bench
from bench.judging.peers import Environments
from bench.judging.report import judge, render_loads, to_json


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.judging", description="Measure /classify and /clip-score beside LitServe and infinity."
    )
    parser.add_argument("--quick", action="store_true", help="one short round, few settings of the peers")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of every server")
    parser.add_argument("--peers", type=Path, default=PEERS, help="folder of the peers' environments")
    parser.add_argument("--without-infinity", action="store_true", help="leave infinity out")
    parser.add_argument("--only", action="append", choices=CASES, help="a case; may be given again")
    return parser.parse_args()


def facts_of(args: argparse.Namespace) -> dict[str, Any]:
    """Say what the figures depend on besides the code."""
    names = ("torch", "torchvision", "transformers", "fastapi", "uvicorn", "pillow")
    return {
        "quick": args.quick,
        "threads": args.threads,
        "machine": {"cores": os.cpu_count(), "load_at_start": round(os.getloadavg()[0], 2)},
        "versions": {
            **{name: importlib.metadata.version(name) for name in names},
            "litserve": pinned_version("litserve", "litserve"),
            "infinity-emb": pinned_version("infinity", "infinity-emb"),
            "infinity's transformers": pinned_version("infinity", "transformers"),
        },
    }


def main() -> None:
    """Measure, print, judge."""
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers that run are ended too
    started_at = time.perf_counter()
    facts = facts_of(args)
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        environments = Environments(args.peers, Path(folder) / "models", args.threads)
        cases = make_cases(environments.models, args.only or list(CASES))
        bench = Bench(
            QUICK if args.quick else FULL,
            environments,
            with_infinity=not args.without_infinity,
            workdir=Path(folder),
        )
        bench.measure(cases)
    figures = judge(cases)
    print(f"{render_loads(cases)}\n\n{render(figures)}\n")
    for peer, reason in bench.not_run.items():
        print(f"{peer} not run: {reason}")
    took = {"not_run": bench.not_run, "took_s": round(time.perf_counter() - started_at)}
    print(json.dumps(to_json(cases, figures, {**facts, **took})))


if __name__ == "__main__":
    main()
