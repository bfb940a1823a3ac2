"""A job too many: 503 `queue_full`, whichever way it comes, and nothing of it is kept."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.workbench import RECIPE, Workbench

DATASET = {"name": "one-too-many", "train_per_class": 2, "test_per_class": 0, **RECIPE}


@pytest.fixture
def narrow(tmp_path: Path, database_url: str) -> Iterator[Node]:
    """A node that lets one job wait."""
    with serve(make_settings(tmp_path / "data", database_url, max_queued_jobs=1), FakeModels()) as served:
        yield served


@pytest.fixture
def bench(narrow: Node) -> Iterator[Workbench]:
    bench = Workbench(narrow)
    yield bench
    bench.close()


def state(http: httpx.Client) -> list[Any]:
    return [http.get(path).json() for path in ("/jobs", "/datasets", "/train-jobs", "/generations")]


def test_every_way_to_hand_work_in_is_refused_and_leaves_nothing(bench: Workbench) -> None:
    http = bench.http
    ready = bench.make("ready", train_per_class=2)
    failed = http.post("/datasets", json={**DATASET, "name": "failed"}).json()
    http.post(f"/jobs/{failed['job_id']}/cancel")
    waiting = http.post("/generate", json={"prompt": "a fox"}, headers={"Prefer": "respond-async"}).json()
    before = state(http)
    ways: tuple[tuple[str, object, dict[str, str]], ...] = (
        ("/datasets", DATASET, {}),
        (f"/datasets/{ready['id']}/extend", {"train_per_class": 1}, {}),
        ("/train-jobs", {"dataset_id": ready["id"]}, {}),
        ("/train-jobs", {"dataset": DATASET}, {}),
        ("/generate", {"prompt": "a fox"}, {"Prefer": "respond-async"}),
        (f"/jobs/{failed['job_id']}/retry", None, {}),
    )
    for number, (path, body, headers) in enumerate(ways):
        answer = http.post(path, json=body, headers={"Idempotency-Key": f"key-{number}", **headers})
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_full"), path
        assert int(answer.headers["retry-after"]) >= 1
    assert state(http) == before
    http.post(f"/jobs/{waiting['id']}/cancel")
    answer = http.post("/datasets", json=DATASET, headers={"Idempotency-Key": "key-0"})
    assert answer.status_code == 202  # the key was not used up
    assert "idempotency-replayed" not in answer.headers


def test_what_waits_goes_on_and_what_needs_no_job_is_taken(bench: Workbench) -> None:
    http = bench.http
    made = http.post("/datasets", json=DATASET).json()
    assert http.post("/generate", json={"prompt": "a fox"}).status_code == 200
    empty = {**DATASET, "name": "uploads", "train_per_class": 0}
    assert http.post("/datasets", json=empty).json()["status"] == "empty"
    assert http.post("/datasets", params={"dry_run": True}, json={**DATASET, "name": "later"}).status_code == 200
    assert http.post(f"/jobs/{made['job_id']}/pause").json()["status"] == "paused"
    assert http.post(f"/jobs/{made['job_id']}/resume").json()["status"] == "queued"
    bench.work(made["job_id"])
    assert http.post("/datasets", json={**DATASET, "name": "later"}).status_code == 202


def test_the_bound_is_told(bench: Workbench) -> None:
    assert bench.http.get("/capabilities").json()["limits"]["queued_jobs"] == 1
