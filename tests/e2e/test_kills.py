"""The real engine of the demo pack, and every process of the node killed while it makes a dataset."""

import os
import signal
from pathlib import Path

import httpx

from testing.waiting import wait_for
from tests.e2e.asking import dataset, files_of, follow
from tests.e2e.conftest import ServedNode, served

BODY = dataset(train_per_class=10, generation={"num_inference_steps": 10, "scheduler": "euler_a"})


def wait_for_progress(node: ServedNode, job_id: str, done: int) -> None:
    """Wait until so many images are made; without an answer while the API is away."""

    def job() -> dict:
        try:
            return node.http.get(f"/jobs/{job_id}").json()
        except httpx.TransportError:
            return {}

    wait_for(job, lambda job: bool(job) and job["progress"]["done"] >= done)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_every_process_is_killed_and_the_files_are_those_of_an_undisturbed_run(tmp_path: Path, sqlite_url: str) -> None:
    data, headers = tmp_path / "data", {"Idempotency-Key": "friday"}
    with served(data, sqlite_url, may_be_killed=True) as node:
        created = node.http.post("/datasets", json=BODY, headers=headers).json()
        job_id = created["job_id"]
        wait_for_progress(node, job_id, 2)
        kill(node.child("api"))
        wait_for_progress(node, job_id, 6)
        kill(node.child("worker"))
        wait_for_progress(node, job_id, 10)
        for process in (node.child("api"), node.child("worker"), node.process.pid):
            kill(process)
    with served(data, sqlite_url) as node:
        again = node.http.post("/datasets", json=BODY, headers=headers)
        assert (again.json()["id"], again.headers["idempotency-replayed"]) == (created["id"], "true")
        job = follow(node.http, job_id)
        assert (job["status"], job["error"]) == ("succeeded", None)
        assert job["progress"]["done"] == job["progress"]["total"] == 24
        assert node.http.get(f"/datasets/{created['id']}").json()["num_images"] == 24
        survived = files_of(data / "datasets" / "fox-dog")
        undisturbed = node.http.post("/datasets", json={**BODY, "name": "undisturbed"}).json()
        assert follow(node.http, undisturbed["job_id"])["status"] == "succeeded"
        assert files_of(data / "datasets" / "undisturbed") == survived
    assert len(survived) == 24
