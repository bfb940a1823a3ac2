"""Evaluations and exports whose process is killed at each point: the same result in the end, and nothing twice."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from app.db.models import Evaluation, Job
from app.storage.layout import DataFolder
from testing.kills import Kill
from testing.trained_models import add_model
from testing.uploads import CLASSES, create_empty, fill
from tests.crash.asking import wait_for_end
from tests.crash.house import House, end, wait_for_death
from tests.crash.invariants import check_database, check_files, check_work_has_ended

IN_WORKER = {
    "running": Kill("committed", ("UPDATE jobs", "'running'")),
    "half a feature": Kill("write", (".part",), nth=3),
    "a feature, not renamed": Kill("rename", (".part", "features/"), nth=5),
    "features, chunk not recorded": Kill("commit", ("UPDATE jobs SET", "progress")),
    "evaluated, no row": Kill("commit", ("INSERT INTO evaluations",)),
    "a row, step not recorded": Kill("committed", ("INSERT INTO evaluations",)),
    "all done, job not closed": Kill("commit", ("UPDATE jobs", "'succeeded'")),
    "job closed, workflow not": Kill("committed", ("UPDATE jobs", "'succeeded'")),
}
AT_SUBMISSION = (Kill("commit", ("INSERT INTO jobs",)), Kill("committed", ("INSERT INTO jobs",)))
IN_EXPORT = {
    "made, not renamed": Kill("rename", (".part", "exports/")),
    "kept, not answered": Kill("send", ("/export", "http.response.start")),
    "half sent": Kill("send", ("/export", "http.response.body")),
}


def photographs(house: House) -> tuple[str, str]:
    """Upload pictures and add a model of their classes; return both ids."""
    dataset_id = create_empty(house.http, "photos")["id"]
    fill(house.http, dataset_id, num_train=0, num_test=6)
    return dataset_id, add_model(house.db, DataFolder(house.data_dir), CLASSES, name="mine")


def ask(house: House, model_id: str, dataset_id: str, key: str = "one") -> str:
    answer = house.http.post(
        f"/models/{model_id}/evaluations", json={"dataset_id": dataset_id}, headers={"Idempotency-Key": key}
    )
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def outcome(house: House, model_id: str, job_id: str) -> dict[str, Any]:
    """Return what a job's evaluation says, without ids and times."""
    evaluation_id = house.http.get(f"/jobs/{job_id}").json()["result"]["evaluation_id"]
    read = house.http.get(f"/models/{model_id}/evaluations/{evaluation_id}").json()
    return {name: value for name, value in read.items() if name not in ("id", "job_id", "created_at")}


def features(house: House) -> list[str]:
    return sorted(path.name for path in (house.data_dir / "features").glob("??/*"))


def check(house: House, model_id: str, job_id: str, dataset_id: str) -> None:
    """One row, and what an evaluation without a kill says; no file is new after that."""
    check_work_has_ended(house)
    check_database(house)
    check_files(house)
    kept = features(house)
    again = ask(house, model_id, dataset_id, key="two")
    assert wait_for_end(house, again) == "succeeded"
    assert outcome(house, model_id, again) == outcome(house, model_id, job_id)
    assert features(house) == kept
    with house.db.snapshot() as session:
        assert session.scalar(select(func.count()).select_from(Evaluation)) == 2
        assert session.scalar(select(func.count()).select_from(Job).where(Job.kind == "evaluate")) == 2


@pytest.mark.parametrize("kill", IN_WORKER.values(), ids=IN_WORKER.keys())
def test_a_worker_killed_in_an_evaluation_is_made_up_for(house: House, kill: Kill) -> None:
    house.start_node()
    dataset_id, model_id = photographs(house)
    house.start_worker(kill)
    job_id = ask(house, model_id, dataset_id)
    wait_for_death(house.worker)
    house.mend()
    assert wait_for_end(house, job_id) == "succeeded"
    check(house, model_id, job_id, dataset_id)


@pytest.mark.parametrize("kill", AT_SUBMISSION, ids=["not committed", "committed"])
def test_an_evaluation_whose_node_was_killed_is_sent_again_and_done_once(house: House, kill: Kill) -> None:
    house.mend()
    dataset_id, model_id = photographs(house)
    end(house.node)
    house.start_node(kill)
    with pytest.raises(httpx.TransportError):
        ask(house, model_id, dataset_id)
    wait_for_death(house.node)
    house.mend()
    job_id = ask(house, model_id, dataset_id)
    assert wait_for_end(house, job_id) == "succeeded"
    check(house, model_id, job_id, dataset_id)


def exports(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "exports").rglob("*") if path.is_file()]


@pytest.mark.parametrize("export_format", ["safetensors", "bundle"])
@pytest.mark.parametrize("kill", IN_EXPORT.values(), ids=IN_EXPORT.keys())
def test_an_export_whose_node_was_killed_is_made_once_and_whole(house: House, kill: Kill, export_format: str) -> None:
    house.start_node()
    model_id = add_model(house.db, DataFolder(house.data_dir), CLASSES, name="mine")
    path = f"/models/{model_id}/export?format={export_format}"
    end(house.node)
    house.start_node(kill)
    with pytest.raises(httpx.TransportError):
        house.http.get(path)
    wait_for_death(house.node)
    house.start_node()
    [first, second] = [house.http.get(path) for _ in range(2)]
    assert (first.status_code, first.content) == (200, second.content)
    [kept] = exports(house.data_dir)
    assert kept.read_bytes() == first.content
    assert house.http.delete(f"/models/{model_id}").status_code == 204
    assert exports(house.data_dir) == []
