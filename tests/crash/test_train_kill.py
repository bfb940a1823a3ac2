"""A node that fine-tunes is killed by SIGKILL; another one goes on from the last epoch, to the same bytes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testing.fake_models import FakeModels, add_backbone
from testing.fine_tuning import write_backbone_folder
from testing.node import Node, make_settings, serve
from testing.node_process import StartNode, nodes
from testing.uploads import create_empty, fill
from testing.waiting import wait_for, wait_until

EPOCHS = 8


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    return write_backbone_folder(tmp_path / "tiny")


@pytest.fixture
def front(database_url: str, tmp_path: Path, backbone: Path) -> Iterator[Node]:
    """A node without a worker, which takes the requests."""
    models = FakeModels()
    add_backbone(models, backbone)
    with serve(make_settings(tmp_path / "data", database_url, run_dir=tmp_path / "front"), models) as node:
        yield node


@pytest.fixture
def start_node(front: Node, database_url: str, tmp_path: Path, backbone: Path) -> Iterator[StartNode]:
    with nodes(tmp_path, front.settings.data_dir, database_url, backbone=backbone) as start:
        yield start


def submit(front: Node, dataset_id: str) -> str:
    body = {"dataset_id": dataset_id, "backbone": "tiny", "fine_tune": "all", "epochs": EPOCHS, "batch_size": 4}
    answer = front.http.post("/train-jobs", json=body)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def read(front: Node, job_id: str) -> dict[str, Any]:
    job: dict[str, Any] = front.http.get(f"/train-jobs/{job_id}").json()
    return job


def end(front: Node, job_id: str) -> dict[str, Any]:
    return wait_for(lambda: read(front, job_id), lambda job: job["status"] not in ("queued", "running"))


@pytest.mark.slow("starts two nodes that import torch")
def test_a_killed_fine_tuning_goes_on_at_the_last_epoch(front: Node, start_node: StartNode) -> None:
    dataset_id = create_empty(front.http, "photos")["id"]
    fill(front.http, dataset_id, num_train=30)
    victim = start_node("victim")
    job_id = submit(front, dataset_id)
    checkpoint = front.settings.data_dir / "finetuning" / job_id / "last.safetensors"
    wait_until(lambda: len(read(front, job_id)["epochs"]) >= 2)
    victim.kill()
    killed = read(front, job_id)
    assert killed["status"] == "running"
    assert 2 <= len(killed["epochs"]) < EPOCHS
    assert checkpoint.exists()

    start_node("successor")
    resumed = end(front, job_id)
    assert (resumed["status"], resumed["error"]) == ("succeeded", None)
    assert [epoch["epoch"] for epoch in resumed["epochs"]] == list(range(1, EPOCHS + 1))
    assert resumed["epochs"][:2] == killed["epochs"][:2]  # they were not trained again
    assert resumed["progress"]["done"] == resumed["progress"]["total"]
    assert not checkpoint.parent.exists()

    undisturbed = end(front, submit(front, dataset_id))
    hashes = [front.http.get(f"/models/{job['model_id']}").json()["sha256"] for job in (resumed, undisturbed)]
    assert hashes[0] == hashes[1]
