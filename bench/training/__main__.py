"""Train on the 397 photographs of ants and bees: Foxhound, the tutorial's loop, and a bare forward with scikit-learn.

    python -m bench.training [--rounds 2] [--threads 2]

Prints a table and one line of JSON. Foxhound's seconds are those of a client: from the POST until the job has
succeeded, the first time (features computed) and the second (features cached). The tutorial's 25 epochs are one
measured epoch times 25.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import torch

from app.modelpacks.pack import demo_pack_folder
from bench.generate.pipeline import Subject
from bench.generate.servers import foxhound, running, versions
from bench.training.peers import PLAIN, Bare, Photographs, bare, tutorial_epoch_s

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "ants-bees"
CLASSES = ("ants", "bees")
EPOCHS = 25
SETTINGS: dict[str, Any] = {"backbone": "photo", "epochs": EPOCHS}


def photographs(split: str) -> Photographs:
    """Return the files of a split with their classes."""
    files = [(file, label) for label, name in enumerate(CLASSES) for file in sorted((DATA / split / name).iterdir())]
    return Photographs([file for file, _ in files], [label for _, label in files], PLAIN)


def upload(http: httpx.Client, train: Photographs, test: Photographs) -> str:
    """Make a dataset of the photographs and return its id."""
    classes = [{"name": name, "prompts": [name]} for name in CLASSES]
    body = {"name": "photographs", "classes": classes, "train_per_class": 0, "test_per_class": 0}
    dataset_id = str(http.post("/datasets", json=body).raise_for_status().json()["id"])
    for split, given in (("train", train), ("test", test)):
        for label, name in enumerate(CLASSES):
            mine = [file for file, own in zip(given.files, given.labels, strict=True) if own == label]
            for start in range(0, len(mine), 50):
                files = [("files", (file.name, file.read_bytes())) for file in mine[start : start + 50]]
                form = {"class_name": name, "split": split}
                http.post(f"/datasets/{dataset_id}/images", data=form, files=files).raise_for_status()
    return dataset_id


def trained(http: httpx.Client, dataset_id: str, **settings: Any) -> tuple[float, float]:
    """Train, and return seconds until the job has succeeded, and the test accuracy."""
    began = time.perf_counter()
    job = http.post("/train-jobs", json={"dataset_id": dataset_id, **settings}).raise_for_status().json()
    while job["status"] not in ("succeeded", "failed", "cancelled"):
        time.sleep(0.05)
        job = http.get(f"/train-jobs/{job['id']}").json()
    seconds = time.perf_counter() - began
    if job["model_id"] is None:
        raise SystemExit(f"The job failed: {job['error']}")
    metrics = http.get(f"/models/{job['model_id']}").json()["metrics"]["test"]
    return seconds, float(metrics["headline"]["accuracy"]["value"])


def one_round(folder: Path, threads: int, train: Photographs, test: Photographs) -> dict[str, Any]:
    """Measure everything once, one after the other."""
    found: dict[str, Any] = {"tutorial_s": EPOCHS * tutorial_epoch_s(folder / "photo", train, test)}
    peer: Bare = bare(folder / "photo", train, test)
    found |= {"bare_s": peer.decode_s + peer.forward_s + peer.fit_s, "bare_accuracy": peer.accuracy}
    with running(foxhound(), Subject(demo_pack_folder(), "cpu", threads), folder / "node.log") as node:
        http = httpx.Client(base_url=node.url, timeout=600)
        http.get("/backbones").raise_for_status()
        dataset_id = upload(http, train, test)
        found["first_s"], found["accuracy"] = trained(http, dataset_id, **SETTINGS)
        found["second_s"], _ = trained(http, dataset_id, **SETTINGS)
        found["sweep_s"], found["sweep_accuracy"] = trained(
            http, dataset_id, backbone="photo", epochs=EPOCHS, head={"solver": "sweep", "sweep_solver": "sgd"}
        )
    return found


def main() -> int:
    """Run the rounds; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"The photographs are not there: {DATA}")
    torch.set_num_threads(arguments.threads)
    train, test = photographs("train"), photographs("val")
    rounds = []
    for _ in range(arguments.rounds):
        with tempfile.TemporaryDirectory(prefix="bench-training-") as folder:
            rounds.append(one_round(Path(folder), arguments.threads, train, test))
        print(json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    median = {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}
    ratios = {
        "tutorial / first run": median["tutorial_s"] / median["first_s"],
        "tutorial / second run": median["tutorial_s"] / median["second_s"],
        "first run / (decode + bare forward + scikit-learn)": median["first_s"] / median["bare_s"],
        "second run with a sweep of 24 / with one setting": median["sweep_s"] / median["second_s"],
    }
    print("| what | seconds | accuracy |\n| --- | --- | --- |")
    print(f"| the tutorial's loop, {EPOCHS} epochs | {median['tutorial_s']:.1f} | |")
    print(f"| decode + bare forward + scikit-learn | {median['bare_s']:.1f} | {median['bare_accuracy']:.3f} |")
    print(f"| Foxhound, first run | {median['first_s']:.1f} | {median['accuracy']:.3f} |")
    print(f"| Foxhound, second run | {median['second_s']:.1f} | {median['accuracy']:.3f} |")
    print(f"| Foxhound, a sweep of 24 settings | {median['sweep_s']:.1f} | {median['sweep_accuracy']:.3f} |")
    print("\n| ratio | |\n| --- | --- |")
    for name, value in ratios.items():
        print(f"| {name} | {value:.2f} |")
    print(json.dumps({"bench": "training", "threads": arguments.threads, "rounds": rounds, "versions": versions()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
