"""A prune in another process beside everything that a node does: readers get whole images or 404."""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from app.db.session import Database
from app.services.store.recovery import sweep
from app.services.store.removal import finish_removals
from app.services.store.retention import Retention, prune
from app.storage.layout import DataFolder
from testing.node import Node
from testing.old_images import check_files
from testing.uploads import create_empty, fill

SKETCH = {"prompt": "a sketch of a fox", "num_inference_steps": 1, "num_images_per_prompt": 2}


def generate(http: httpx.Client) -> list[dict[str, Any]]:
    answer = http.post("/generate", json=SKETCH)
    assert answer.status_code == 200, answer.text
    images: list[dict[str, Any]] = answer.json()["images"]
    return images


def test_readers_writers_and_deletions_beside_a_prune(node: Node) -> None:
    http, settings = node.http, node.settings
    images = [image for _ in range(16) for image in generate(http)]
    dataset = create_empty(http)
    fill(http, dataset["id"])
    done, statuses = threading.Event(), Counter[tuple[str, int]]()

    def read(offset: int) -> None:
        for k in range(len(images)):
            image = images[(k + offset) % len(images)]
            answer = http.get(image["url"])
            statuses["get", answer.status_code] += 1
            if answer.status_code == 200:
                assert hashlib.sha256(answer.content).hexdigest() == image["sha256"]
            else:
                assert answer.json()["detail"]
            judged = http.post("/classify", json={"image_id": image["id"]})
            statuses["classify", judged.status_code] += 1
            if judged.status_code == 422:
                assert judged.json()["code"] == "image_not_found"

    def repeat(work: Callable[[], object]) -> None:
        while not done.is_set():
            work()

    def delete_one() -> None:
        for image in images[::7]:
            generation_id = http.get(f"{image['url']}/metadata").json().get("generation_id")
            if generation_id is not None:
                status = http.delete(f"/generations/{generation_id}").status_code
                assert status in (204, 404)

    def upload_and_delete() -> None:
        other = create_empty(http, "other")
        fill(http, other["id"], num_train=1, num_test=0)
        assert http.delete(f"/datasets/{other['id']}").status_code == 204

    db, folder = Database(settings.resolved_database_url), DataFolder(settings.data_dir)
    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, offset) for offset in (0, 10, 20)]
        loops = [pool.submit(repeat, work) for work in (lambda: generate(http), delete_one, upload_and_delete)]
        # While `generate` is at work, as a start of another node beside this one would.
        sweeps = pool.submit(repeat, lambda: (finish_removals(db, folder), sweep(db, folder)))
        keep = Retention(gigabytes=0)
        removed = [prune(db, folder, keep) for _ in range(5)]
        for reader in readers:
            reader.result()
        done.set()
        for loop in (*loops, sweeps):
            loop.result()
    removed.append(prune(db, folder, keep))
    assert set(statuses) <= {("get", 200), ("get", 404), ("classify", 200), ("classify", 422)}
    assert statuses["get", 404] > 0
    assert sum(each.images for each in removed) > 0
    assert http.get("/generations").json()["items"] == []
    assert http.get(f"/datasets/{dataset['id']}/archive.zip").status_code == 200
    check_files(db, folder)
    db.close()
