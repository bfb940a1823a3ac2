"""The command line: parse, build LitServe's environment, measure, print.

Progress goes to standard error; the tables and one line of JSON to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from app.modelpacks.pack import demo_pack_folder
from bench.demo_pack.table import render
from bench.environments import peer_python, pinned_version
from bench.generate.measure import Bench
from bench.generate.pipeline import Subject, load_pipeline
from bench.generate.plan import FULL, GPU, GPU_SHORT, QUICK, Plan
from bench.generate.report import judge, render_loads, summarize_all, to_json
from bench.generate.servers import versions
from testing.packs import write_pack

LOGS = Path("build/bench/generate")
RANDOM_PACK = Path("build/bench/packs/sd15")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.generate", description="Measure /generate beside other ways to serve the same pack."
    )
    parser.add_argument("--quick", action="store_true", help="one short round: whether it works, not how fast it is")
    parser.add_argument(
        "--rounds", type=int, help="over all servers, in place of the plan's; 20 minutes each on two cores"
    )
    parser.add_argument("--check", action="store_true", help="exit with 1 if a target is missed")
    parser.add_argument("--gpu", action="store_true", help="Stable Diffusion v1.5 with random weights, on a GPU")
    parser.add_argument("--short", action="store_true", help="with --gpu: what the targets need, without LitServe")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], default="float32", help="of all servers' models, on a CPU"
    )
    parser.add_argument("--one-environment", action="store_true", help="LitServe is installed beside Foxhound")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of a forward, the same for all")
    return parser.parse_args()


def plan_of(args: argparse.Namespace) -> Plan:
    """Choose how much is measured."""
    on_a_gpu = GPU_SHORT if args.short else GPU
    plan = QUICK if args.quick else on_a_gpu if args.gpu else FULL
    return replace(plan, repeats=args.rounds or plan.repeats)


def subject_of(args: argparse.Namespace) -> Subject:
    """Choose what is served; a GPU's pack is written here, with random weights in half precision, once."""
    if not args.gpu:
        return Subject(demo_pack_folder(), "cpu", args.threads, args.dtype)
    pack = RANDOM_PACK.resolve()
    if not (pack / "manifest.json").exists():
        write_pack(pack)
    return Subject(pack, "cuda", args.threads, "float16")


def facts_of(args: argparse.Namespace) -> dict[str, Any]:
    """Say what the figures depend on besides the code."""
    return {
        "quick": args.quick,
        "threads": args.threads,
        "gpu": torch.cuda.get_device_name() if args.gpu else None,
        "machine": {"cores": os.cpu_count(), "processor": _processor(), "load_at_start": os.getloadavg()[0]},
        "versions": {**versions(), "litserve": pinned_version("litserve", "litserve")},
    }


def main() -> None:
    """Measure, print, judge."""
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server that runs is ended too
    started_at = time.perf_counter()
    facts = facts_of(args)
    LOGS.mkdir(parents=True, exist_ok=True)
    plan = plan_of(args)
    python = Path(sys.executable) if args.one_environment or not plan.batches else peer_python("litserve")
    subject = subject_of(args)
    facts["dtype"] = subject.dtype
    results = Bench(plan, load_pipeline(subject), subject, python, LOGS.resolve()).run()
    figures = judge(results)
    print(render_loads(summarize_all(results)))
    print(f"\n{render(figures)}\n")
    print(json.dumps(to_json(results, figures, {**facts, "took_s": round(time.perf_counter() - started_at)})))
    if args.check and any(figure.verdict not in ("", "ok") for figure in figures):
        raise SystemExit(1)


def _processor() -> str:
    """Name the processor as the kernel does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
