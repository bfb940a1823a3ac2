"""Lists, events and kept answers stay small whatever the recipes are, and do not read them from the database."""

import json
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import Engine, event

from app.db.base import new_id, utc_now
from app.db.models import Dataset, DatasetTexts, Generation, IdempotencyKey, Image, Job, TrainedModel, TrainEpoch
from app.db.session import Database
from testing.recipes import few_classes, long_negatives, many_classes

NUM = 40
MAX_ANSWER_BYTES = 1_000_000
MAX_GROWTH_BYTES = 20_000_000


@contextmanager
def statements() -> Iterator[list[str]]:
    """Write down what is sent to any database meanwhile."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def copy_of(row: Any, **changes: Any) -> Any:
    """Return a new row like another one."""
    columns = [column.key for column in type(row).__mapper__.columns]
    return type(row)(**{**{name: getattr(row, name) for name in columns}, "id": new_id(), **changes})


def multiply(db: Database, dataset_id: str, num: int) -> None:
    """Give a dataset so many twins, each with its texts and its job."""
    with db.snapshot() as session:
        dataset, texts = session.get_one(Dataset, dataset_id), session.get_one(DatasetTexts, dataset_id)
        job = session.get_one(Job, dataset.job_id)
    for k in range(num):
        with db.transaction() as session:
            twin, twin_job = copy_of(dataset, name=f"twin-{k}"), copy_of(job)
            twin.job_id = twin_job.id
            twin.texts = DatasetTexts(classes=texts.classes, variables=texts.variables)
            session.add_all([twin, twin_job])


@contextmanager
def cheap() -> Iterator[list[str]]:
    """See that what is done meanwhile takes little memory, in the node as in its client: both are this process."""
    tracemalloc.start()
    try:
        with statements() as seen:
            yield seen
        assert tracemalloc.get_traced_memory()[1] < MAX_GROWTH_BYTES
    finally:
        tracemalloc.stop()


def get(http: httpx.Client, path: str) -> dict:
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    assert len(answer.content) < MAX_ANSWER_BYTES
    return answer.json()


@pytest.mark.parametrize("body", [few_classes(), many_classes(num=100, prompts=30), long_negatives()])
def test_lists_and_events_leave_the_recipes_where_they_are(http: httpx.Client, db: Database, body: dict) -> None:
    answer = http.post("/datasets", json=body, headers={"Idempotency-Key": "k"})
    made = answer.json()
    multiply(db, made["id"], NUM - 1)
    with cheap() as seen:
        found = list(pages(http, "/datasets?limit=100"))
        jobs = get(http, "/jobs?limit=100")["items"]
        [told] = events(http, made["job_id"])
        read, job = get(http, f"/datasets/{made['id']}"), get(http, f"/jobs/{made['job_id']}")
    assert (len(found), len(jobs)) == (NUM, NUM)
    assert not any("dataset_texts" in statement for statement in seen)
    assert read == made
    assert found[-1] == made
    assert [entry["num_prompts"] for entry in read["classes"]] == [len(entry["prompts"]) for entry in body["classes"]]
    for one in (read, job, *found, *jobs, told):
        assert "prompts" not in json.dumps(one).replace("num_prompts", "")
        assert "variables" not in json.dumps(one)
    assert job["spec"]["dataset_id"] == made["id"]
    assert told == jobs[-1] == {name: value for name, value in job.items() if name != "spec"}
    with db.snapshot() as session:
        assert session.get_one(IdempotencyKey, "k").answer == answer.text
    assert len(answer.content) < 100_000


def test_train_jobs_keep_no_copy_of_their_datasets_recipe(http: httpx.Client, db: Database) -> None:
    made = http.post("/train-jobs", json={"dataset": many_classes(), "epochs": 3}).json()
    assert made["spec"]["dataset"]["name"] == "many"
    assert "classes" not in made["spec"]["dataset"]
    figures = {"train_loss": 1.0, "train_accuracy": 0.5, "lr": 0.1, "elapsed_ms": 1.0}
    with db.transaction() as session:
        session.add_all([TrainEpoch(job_id=made["id"], epoch=epoch, **figures) for epoch in range(1, 1_001)])
    with cheap() as seen:
        [listed] = get(http, "/train-jobs?limit=100")["items"]
        read = get(http, f"/train-jobs/{made['id']}")
    assert not any("dataset_texts" in statement for statement in seen)
    assert [epoch["epoch"] for epoch in read["epochs"]] == list(range(1, 1_001))
    assert listed["last_epoch"] == read["epochs"][-1]
    assert listed == {name: value for name, value in read.items() if name not in ("spec", "warnings", "epochs")}


def test_models_are_listed_without_what_grows_with_their_classes(http: httpx.Client, db: Database) -> None:
    tables = {"per_class": [], "confusion_matrix": np.eye(1_000, dtype=int).tolist()}
    columns = {"dataset_id": "d", "backbone": "resnet18", "backbone_sha256": "0", "sha256": "0", "num_bytes": 1}
    classes = [f"class {k}" for k in range(1_000)]
    for k in range(NUM):
        with db.transaction() as session:
            session.add(
                TrainedModel(
                    id=new_id(), name=f"m{k}", job_id=new_id(), path=f"models/{k}", classes=classes, lineage={},
                    metrics={"train": {"accuracy": 0.5}}, metric_tables={"train": tables}, **columns,
                )
            )  # fmt: skip
    with cheap() as seen:
        found = list(pages(http, "/models?limit=100"))
    assert len(found) == NUM
    assert all("50.0% are right" in one["metrics"]["train"]["headline"]["sentence"] for one in found)
    assert max(len(json.dumps(one["metrics"])) for one in found) < 2_000
    assert not any("metric_tables" in statement for statement in seen)
    read = http.get(f"/models/{found[0]['id']}").json()["metrics"]["train"]["unseparated"]
    assert (read["n"], len(read["per_class"]), len(read["confusion_matrix"])) == (1_000, 1_000, 100)


def test_a_page_of_large_items_ends_early_and_goes_on(http: httpx.Client, db: Database) -> None:
    classes = [{"name": f"{k} ".ljust(200, "🦊"), "prompts": ["x"]} for k in range(1_000)]
    body = {"name": "wide", "seed": 7, "classes": classes, "train_per_class": 1, "test_per_class": 0}
    made = http.post("/datasets", json=body).json()
    multiply(db, made["id"], 9)
    first = http.get("/datasets?limit=100")
    assert len(first.content) < 5_000_000
    assert 1 <= len(first.json()["items"]) < 10
    assert len({one["id"] for one in pages(http, "/datasets?limit=100", max_bytes=5_000_000)}) == 10


def test_generations_with_many_labels_are_listed_a_few_at_a_time(http: httpx.Client, db: Database) -> None:
    labels = [f"{k} ".ljust(200, "🦊") for k in range(256)]
    parameters = {
        "prompt": "x", "negative_prompt": "", "guidance_scale": 7.5, "num_inference_steps": 1,
        "num_images_per_prompt": 4, "width": 64, "height": 64, "seed": 0, "scheduler": "ddim", "output_format": "png",
        "labels": labels,
    }  # fmt: skip
    timings = {"queued_ms": 0, "denoising_ms": 0, "decoding_ms": 0}
    image = {"format": "png", "width": 1, "height": 1, "num_bytes": 1, "sha256": "0", "lineage": {}}
    scores = [{"label": label, "probability": 1 / 256} for label in labels]
    for _ in range(10):
        row = Generation(
            id=new_id(), created_at=utc_now(), pack="demo", pack_revision="1", parameters=parameters, warnings=[],
            timings=timings,
        )  # fmt: skip
        images = [
            Image(id=new_id(), path=new_id(), generation_id=row.id, position=k, seed=k, **image,
                  label_probabilities=scores) for k in range(4)
        ]  # fmt: skip
        with db.transaction() as session:
            session.add(row)
            session.flush()
            session.add_all(images)
    first = http.get("/generations?limit=100")
    assert len(first.content) < 3_000_000
    assert len({one["id"] for one in pages(http, "/generations?limit=100", max_bytes=3_000_000)}) == 10


def pages(http: httpx.Client, path: str, max_bytes: int = MAX_ANSWER_BYTES) -> Iterator[dict]:
    """Give every item of a list."""
    cursor = ""
    while True:
        answer = http.get(path + cursor)
        assert answer.status_code == 200, answer.text
        assert len(answer.content) < max_bytes
        yield from answer.json()["items"]
        if answer.json()["next_cursor"] is None:
            return
        cursor = f"&cursor={answer.json()['next_cursor']}"


def events(http: httpx.Client, job_id: str) -> list[dict]:
    """Return the first event of a job's stream."""
    with http.stream("GET", f"/jobs/{job_id}/events") as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                return [json.loads(line.removeprefix("data: "))]
    return []
