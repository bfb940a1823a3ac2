"""Datasets that grow by further generation; the jobs run here, against the node's own socket."""

from pathlib import Path

import pytest

from app.db.models import Dataset, Image
from app.jobs import record
from app.jobs.signals import JobCancelled
from testing.fake_jobs import run_job
from testing.uploads import picture, upload
from testing.workbench import RECIPE, Workbench


@pytest.mark.parametrize("combine", ["cartesian", "sampled"])
def test_some_and_then_more_are_the_files_of_all_at_once(bench: Workbench, combine: str) -> None:
    recipe = {"combine": combine, "filter": {}, "max_attempts": 50}
    bench.models.clip.score = lambda image, text: float(sum(image.getpixel((3, 3))) % 7 > 2) * ("fox" in text)
    bench.make("at-once", train_per_class=8, test_per_class=3, **recipe)
    parts = bench.make("in-parts", train_per_class=3, **recipe)
    grown = bench.extend(parts, train_per_class=5)
    assert bench.work(grown["job_id"])["num_images"] == 10
    grown = bench.extend(bench.read(parts["id"]), test_per_class=3)
    assert bench.http.get(f"/jobs/{grown['job_id']}").json()["progress"]["total"] == 6
    bench.work(grown["job_id"])
    read = bench.read(parts["id"])
    assert (read["status"], read["num_images"], read["train_per_class"], read["test_per_class"]) == ("ready", 22, 8, 3)
    assert read["num_rejected"] > 0
    assert len(bench.files("at-once")) == 22
    assert bench.files("in-parts") == bench.files("at-once")


def test_more_images_are_another_version_and_trained_on(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=2)
    path = f"/datasets/{read['id']}/version"
    before = bench.http.get(path).json()
    bench.work(bench.extend(read, train_per_class=1)["job_id"])
    after = bench.http.get(path).json()
    assert (before["num_images"], after["num_images"]) == (4, 6)
    assert before["version"] != after["version"]
    job = bench.http.post("/train-jobs", json={"dataset_id": read["id"], "epochs": 1}).json()
    assert job["progress"]["total"] == 7


def test_an_upload_into_the_slot_of_one_that_was_moved_gets_a_name_of_its_own(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=1, filter={}, max_attempts=1)
    before = [picture(1), picture(2, "JPEG")]
    uploaded = upload(bench.http, read["id"], before, class_name="fox").json()["files"]
    bench.models.clip.score = lambda _, text: float("dog" in text)
    bench.work(bench.extend(bench.read(read["id"]), train_per_class=2)["job_id"])
    assert bench.read(read["id"])["status"] == "incomplete"
    files = bench.files("d")
    answer = upload(bench.http, read["id"], [picture(3, "JPEG"), picture(4)], class_name="fox")
    assert answer.json()["num_accepted"] == 2, answer.text
    after = bench.files("d")
    assert {name: after[name] for name in files} == files
    stems = [Path(name).with_suffix("") for name in after]
    assert len(stems) == len(set(stems)) == len(files) + 2
    assert all(bench.http.get(f"/images/{one['image_id']}").status_code == 200 for one in uploaded)
    assert bench.read(read["id"])["status"] == "ready"


def test_uploads_stay_behind_the_generated_images(bench: Workbench) -> None:
    read = bench.make("mixed", train_per_class=2)
    files = [picture(seed) for seed in range(5)]
    assert upload(bench.http, read["id"], files, class_name="fox").status_code == 201
    bench.work(bench.extend(read, train_per_class=3)["job_id"])
    assert upload(bench.http, read["id"], [picture(9)], class_name="fox").status_code == 201
    assert bench.read(read["id"])["status"] == "ready"
    with bench.db.snapshot() as session:
        foxes = session.query(Image).where(Image.class_index == 0).order_by(Image.position)
        places = [(image.position, image.source) for image in foxes]
        assert all((bench.data_dir / image.path).is_file() for image in foxes)
    assert places == [(k, "synthetic" if k < 5 else "real") for k in range(11)]
    generated = {name: data for name, data in bench.files("mixed").items() if "-" in Path(name).name}
    bench.make("at-once", train_per_class=5)
    assert generated == bench.files("at-once")


def test_an_extension_makes_what_a_cancelled_job_left_and_keeps_what_is_missing(bench: Workbench) -> None:
    answer = bench.http.post("/datasets", json={"name": "d", "train_per_class": 4, "test_per_class": 0, **RECIPE})
    created = answer.json()
    with pytest.raises(JobCancelled):
        run_job(bench.db, created["job_id"], bench.handler, lambda: bench.read(created["id"])["num_images"] >= 3)
    with bench.db.transaction() as session:
        record.request_cancel(session, created["job_id"], bench.handler.on_end)
    assert (bench.read(created["id"])["status"], bench.read(created["id"])["num_images"]) == ("cancelled", 3)
    grown = bench.extend(bench.read(created["id"]), train_per_class=1)
    bench.work(grown["job_id"])
    assert bench.read(created["id"])["num_images"] == 10

    bench.models.clip.score = lambda _image, text: float("fox" in text)
    lacking = bench.make("lacking", train_per_class=1, filter={}, max_attempts=1)
    bench.work(bench.extend(lacking, train_per_class=1)["job_id"])
    read = bench.read(lacking["id"])
    assert (read["status"], read["num_images"]) == ("incomplete", 2)
    assert [(place["class_name"], place["position"]) for place in read["missing"]] == [("dog", 0), ("dog", 1)]


def test_a_failed_extension_is_retried_where_it_began(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=2)
    grown = bench.extend(read, train_per_class=1)
    bench.http.post(f"/jobs/{grown['job_id']}/cancel")
    assert bench.read(read["id"])["status"] == "cancelled"
    retry = bench.http.post(f"/jobs/{grown['job_id']}/retry").json()
    assert retry["progress"]["total"] == 2
    again = bench.http.post(f"/jobs/{grown['job_id']}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "dataset_in_use")
    bench.work(retry["id"])
    assert (bench.read(read["id"])["status"], bench.read(read["id"])["num_images"]) == ("ready", 6)


def test_a_dry_run_tells_the_next_places_and_stores_nothing(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=2)
    answer = bench.http.post(f"/datasets/{read['id']}/extend?dry_run=true", json={"test_per_class": 2})
    assert answer.status_code == 200, answer.text
    plan = answer.json()
    assert (plan["num_images"], plan["train_per_class"], plan["test_per_class"]) == (4, 2, 2)
    assert plan["estimated_seconds"] is not None
    assert bench.read(read["id"]) == read
    bench.work(bench.extend(read, test_per_class=2)["job_id"])
    listed = bench.http.get(f"/datasets/{read['id']}/images?split=test").json()["items"]
    made = {image["seed"]: bench.http.get(f"{image['url']}/metadata").json()["lineage"] for image in listed}
    told = [(sample["split"], sample["position"], made[sample["seed"]]["prompt"]) for sample in plan["samples"]]
    assert told == [("test", k % 2, plan["samples"][k]["prompt"]) for k in range(4)]


def test_the_same_key_extends_once(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=1)
    path, key = f"/datasets/{read['id']}/extend", {"Idempotency-Key": "k"}
    first = bench.http.post(path, json={"train_per_class": 1}, headers=key)
    again = bench.http.post(path, json={"train_per_class": 1}, headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    other = bench.http.post(path, json={"train_per_class": 2}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert bench.read(read["id"])["train_per_class"] == 2


def test_a_dataset_that_a_job_works_on_is_not_extended(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=1)
    grown = bench.extend(read, train_per_class=1)
    path = f"/datasets/{read['id']}/extend"
    for query in ("", "?dry_run=true"):
        answer = bench.http.post(path + query, json={"train_per_class": 1})
        assert (answer.status_code, answer.json()["code"]) == (409, "dataset_in_use")
    bench.http.post(f"/jobs/{grown['job_id']}/pause")
    assert bench.http.post(path, json={"train_per_class": 1}).status_code == 409
    bench.http.post(f"/jobs/{grown['job_id']}/resume")
    bench.work(grown["job_id"])
    assert bench.http.post("/train-jobs", json={"dataset_id": read["id"]}).status_code == 202
    assert bench.http.post(path, json={"train_per_class": 1}).json()["code"] == "dataset_in_use"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "#"),
        ({"train_per_class": 0, "test_per_class": 0}, "#"),
        ({"train_per_class": -1}, "#/train_per_class"),
        ({"train_per_class": 100_001}, "#/train_per_class"),
        ({"test_per_class": 1.5}, "#/test_per_class"),
        ({"train_per_class": 50_000}, "#"),
        ({"images": 1}, "#/images"),
    ],
)
def test_extensions_that_cannot_be(bench: Workbench, body: dict, pointer: str) -> None:
    read = bench.make("d", train_per_class=1)
    answer = bench.http.post(f"/datasets/{read['id']}/extend", json=body)
    assert answer.status_code == 422, answer.text
    assert pointer in {error["pointer"] for error in answer.json()["errors"]}
    assert bench.read(read["id"]) == read
    assert bench.http.post("/datasets/none/extend", json={"train_per_class": 1}).status_code == 404


def test_another_pack_does_not_extend_a_dataset(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=1)
    with bench.db.transaction() as session:
        session.get_one(Dataset, read["id"]).pack_revision = "of yesterday"
    answer = bench.http.post(f"/datasets/{read['id']}/extend", json={"train_per_class": 1})
    assert (answer.status_code, answer.json()["code"]) == (409, "pack_changed")
