"""Measures the lists and small copies that the console asks for, on a store of many images.

`python -m bench.console [--images 100000] [--dataset 20000] [--url DATABASE]`: fills a SQLite file, or the named empty
database, serves a node with models without weights, and prints the median and the greatest time of 20 requests each.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert

from app.db import migrations
from app.db.base import new_id, utc_now
from app.db.models import Dataset, Generation, Image
from app.db.session import Database
from app.jobs.migrations import migrate_job_engine
from testing.fake_models import FakeModels
from testing.node import make_settings, serve

WORDS = ("red", "fox", "dog", "watercolor", "sketch", "night", "snow", "forest", "tiny", "old")
CLASSES = [{"name": name, "folder": name, "label": name, "num_prompts": 1} for name in ("fox", "dog", "cat", "owl")]
NUM_REQUESTS = 20
LINEAGE: dict[str, Any] = {
    **{"negative_prompt": "", "guidance_scale": 7.5, "num_inference_steps": 50, "width": 512, "height": 512},
    **{"scheduler": "pndm", "output_format": "png", "pack": "demo", "pack_revision": "a" * 40, "device": "cpu"},
    **{"dtype": "float32", "num_threads": 2, "deterministic": True, "compiled": False},
    "versions": {"torch": "2.12.0", "numpy": "2.3.0", "diffusers": "0.38.0", "transformers": "5.17.0"},
}


def fill(db: Database, num_images: int, num_in_dataset: int) -> str:
    """Write records of images, those of the dataset first; return the dataset's id."""
    dataset_id, generation_id = new_id(), new_id()
    with db.transaction() as session:
        empty = {"job_id": None, "pack": "demo", "pack_revision": "a", "recipe": None, "missing": None}
        dataset: dict[str, Any] = {
            "name": "big",
            "status": "ready",
            "seed": 0,
            "classes": CLASSES,
            "generation": {},
            **empty,
        }
        dataset |= {"train_per_class": num_in_dataset // 4, "validation_per_class": 0, "test_per_class": 0}
        session.execute(insert(Dataset), [{"id": dataset_id, **dataset}])
        generation = {"pack": "demo", "pack_revision": "a", "parameters": {}, "warnings": [], "timings": {}}
        session.execute(insert(Generation), [{"id": generation_id, **generation}])
        rows: list[dict[str, Any]] = []
        for number in range(num_images):
            in_dataset = number < num_in_dataset
            rows.append(_row(number, dataset_id if in_dataset else None, None if in_dataset else generation_id))
            if len(rows) == 2_000:
                session.execute(insert(Image), rows)
                rows = []
        session.execute(insert(Image), rows) if rows else None
    return dataset_id


def _row(number: int, dataset_id: str | None, generation_id: str | None) -> dict[str, Any]:
    prompt = f"a {WORDS[number % 10]} {WORDS[number // 10 % 10]} with {WORDS[number // 100 % 10]} number {number}"
    image_id = new_id()
    return {
        **{"id": image_id, "created_at": utc_now(), "path": f"images/{image_id[-2:]}/{image_id}.png", "format": "png"},
        **{"width": 512, "height": 512, "num_bytes": 300_000, "sha256": f"{number:064x}", "flagged": None},
        **{"clip_score": 20 + number % 10, "label_probabilities": None, "source": "synthetic", "decision": "kept"},
        **{"pixels_sha256": f"{number:064x}" if dataset_id else None, "clip_embedding": bytes(1_024)},
        **{"reason": None, "lineage": {**LINEAGE, "prompt": prompt, "seed": number}, "generation_id": generation_id},
        **{"dataset_id": dataset_id, "split": "train" if dataset_id else None},
        **{"class_index": number % 4 if dataset_id else None, "position": number, "seed": number, "review": None},
    }


def measure(name: str, ask: Callable[[], httpx.Response]) -> None:
    """Ask 20 times and print the median and the greatest time, in ms."""
    times = []
    for _ in range(NUM_REQUESTS):
        began = time.perf_counter()
        answer = ask()
        times.append((time.perf_counter() - began) * 1_000)
        assert answer.status_code == 200, answer.text
    print(f"{name:58} {statistics.median(times):7.1f} ms {max(times):7.1f} ms", flush=True)


def measure_node(http: httpx.Client, dataset_id: str) -> None:
    """Print the times of the console's requests."""

    def ask(name: str, path: str, **params: str | int) -> None:
        measure(name, lambda: http.get(path, params=params))

    deep = http.get("/images", params={"limit": 100}).json()["next_cursor"]
    for _ in range(50):
        deep = http.get("/images", params={"limit": 100, "cursor": deep}).json()["next_cursor"]
    ask("gallery, first page of 100", "/images", limit=100)
    ask("gallery, page 52", "/images", limit=100, cursor=deep)
    ask("gallery, one dataset", "/images", limit=100, dataset_id=dataset_id)
    ask("gallery, one class of the dataset", "/images", limit=100, dataset_id=dataset_id, **{"class": "owl"})
    ask("gallery, a common word", "/images", limit=100, prompt="watercolor")
    ask("gallery, a word that no prompt has", "/images", limit=100, prompt="zebra")
    ask("gallery, a word and a dataset", "/images", limit=100, prompt="zebra", dataset_id=dataset_id)
    ask("gallery, another model", "/images", limit=100, model="sd15")
    ask("dataset, its images", f"/datasets/{dataset_id}/images", limit=100)
    ask(
        "dataset, unreviewed test images",
        f"/datasets/{dataset_id}/images",
        limit=100,
        split="test",
        review="unreviewed",
    )
    ask("dataset, CLIP score up to 21", f"/datasets/{dataset_id}/images", limit=100, max_clip_score=21)
    ask("dataset, its record", f"/datasets/{dataset_id}")
    cursor, pages, began = None, 0, time.perf_counter()
    while True:
        page = http.get("/images", params={"limit": 100, "prompt": "zebra", **({"cursor": cursor} if cursor else {})})
        cursor, pages = page.json()["next_cursor"], pages + 1
        if cursor is None:
            break
    print(f"a word that no prompt has, to the end: {pages} requests, {time.perf_counter() - began:.2f} s")


def main() -> None:
    """Fill a store and measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--dataset", type=int, default=20_000)
    parser.add_argument("--url", help="an empty database; default: a SQLite file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        url = asked.url or f"sqlite:///{name}/foxhound.db"
        with migrations.migration_lock(url):
            migrations.migrate(url)
        migrate_job_engine(url)
        with closing(Database(url)) as db, serve(make_settings(Path(name) / "data", url), FakeModels()) as node:
            began = time.perf_counter()
            dataset_id = fill(db, asked.images, asked.dataset)
            print(
                f"{asked.images} images in {time.perf_counter() - began:.0f} s; median and greatest of {NUM_REQUESTS}"
            )
            measure_node(node.http, dataset_id)


if __name__ == "__main__":
    main()
