"""`python -m bench.models`: models that are loaded and evicted under load; a table and one line of JSON.

The engine of a node on the demo pack, in this process, without HTTP, with further models: copies of the pack's with
other weights. Three cases: the default model alone; all models within the bound; a bound with room for one of them, so
that they are evicted and loaded all the time. Nothing may be lost, no byte may change, and the bound must hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.image_spec import ImageSpec
from app.modelpacks.devices import resolve_device, resolve_dtype
from app.modelpacks.listing import list_model
from app.modelpacks.pack import demo_pack_folder, read_pack
from app.services.inference.loading import ModelChoice, start_inference
from bench.models.material import write_models
from bench.models.measure import Clients, Measured

SPEC = ImageSpec("a watercolor painting of a red fox", num_inference_steps=10, width=128, height=128, scheduler="ddim")
POLL_S = 0.2
# Bound as a part of one model's weights, in the case with room for one.
ROOM_FOR_ONE = 1.5


def measure(args: argparse.Namespace, models: Mapping[str, Path], models_bytes: int, *, mixed: bool) -> Measured:
    """Start a node, let the clients draw, and stop it."""
    with tempfile.TemporaryDirectory() as folder:
        choice = ModelChoice(
            pack="demo",
            models_dir=Path(folder),
            overrides={},
            device=args.device,
            dtype="auto",
            deterministic=None,
            gpu_graphs=True,
            gpu_compile=False,
            num_threads=args.threads,
            max_queue_size=max(64, args.clients),
            models=models,
            models_bytes=models_bytes,
        )
        engine, inference = start_inference(choice)
        try:
            while any(status.state == "loading" for status in engine.status().values()):
                time.sleep(POLL_S)
            clients = Clients(inference, SPEC, [None, *models] if mixed else [None])
            return asyncio.run(clients.run(args.clients, args.images))
        finally:
            engine.close()
            inference.close()


def model_bytes(models: Mapping[str, Path], device: str) -> int:
    """Return the bytes of a model's weights in memory, as the node counts them."""
    name, path = next(iter(models.items()))
    listed = list_model(name, path, read_pack(demo_pack_folder()), resolve_dtype("auto", resolve_device(device)))
    assert listed.skeleton is not None
    return listed.skeleton.num_bytes


def row(name: str, bound: int, run: Measured) -> str:
    """Return a line of the table."""
    return (
        f"| {name} | {run.images} | {sum(run.lost.values())} | {run.images_per_s:.2f} | {run.median_s:.1f} | "
        f"{run.latency_s(0.95):.1f} | {run.loads} | {run.peak_bytes / 1e6:.0f} of {bound / 1e6:.0f} | "
        f"{run.resident_bytes / 1e6:.0f} |"
    )


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--images", type=int, default=12, help="of each client")
    parser.add_argument("--threads", type=int, help="of a forward; default: all cores")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(Path(folder), args.models)
        one = model_bytes(models, args.device)
        bounds = {"one model": one, "all loaded": args.models * one, "room for one": int(ROOM_FOR_ONE * one)}
        runs = {name: measure(args, models, bound, mixed=name != "one model") for name, bound in bounds.items()}
    print("| case | images | lost | images/s | median s | 95 % s | loads | accounted MB | resident MB more |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, run in runs.items():
        print(row(name, bounds[name], run))
    is_sound = all(not run.lost and not run.changed and run.peak_bytes <= bounds[name] for name, run in runs.items())
    found: dict[str, Any] = {
        name: {
            "images": run.images,
            "lost": run.lost,
            "changed": run.changed,
            "images_per_s": round(run.images_per_s, 3),
            "loads": run.loads,
            "peak_bytes": run.peak_bytes,
            "bound_bytes": bounds[name],
            "resident_bytes": run.resident_bytes,
        }
        for name, run in runs.items()
    }
    print(json.dumps({"sound": is_sound, "load": round(os.getloadavg()[0], 1), **found}))
    sys.exit(not is_sound)


if __name__ == "__main__":
    main()
