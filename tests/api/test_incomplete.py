"""Datasets that lack images: trained when that is allowed, filled by uploads, completed by retry or extension."""

import pytest

from app.db.models import Dataset, Image
from app.errors import AppError
from app.jobs import record
from app.jobs.signals import JobCancelled
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from testing.fake_jobs import run_job
from testing.uploads import create_empty, picture, upload
from testing.workbench import RECIPE, Workbench

FILTERED = {"filter": {"threshold": 0.6}, "max_attempts": 2}


def lacking(bench: Workbench, name: str = "d", **changes: object) -> dict:
    """A dataset of two foxes and no dog: CLIP takes every picture for a fox."""
    bench.models.clip.score = lambda _image, text: 5.0 * ("fox" in text)
    read = bench.make(name, train_per_class=2, **FILTERED, **changes)
    assert (read["status"], [entry["num_train"] for entry in read["classes"]]) == ("incomplete", [2, 0])
    return read


def see_everything(bench: Workbench) -> None:
    """Let CLIP take every picture for what it shows."""
    bench.models.clip.score = lambda image, text: (
        5.0 * (("fox" in text) == (image.getpixel((0, 0))[0] > image.getpixel((0, 0))[2]))
    )


def train(bench: Workbench, read: dict, **fields: object):
    return bench.http.post("/train-jobs", json={"dataset_id": read["id"], "epochs": 1, **fields})


def lineages(bench: Workbench, read: dict, **query: str) -> list[dict]:
    items = bench.http.get(f"/datasets/{read['id']}/images", params=query).json()["items"]
    return [bench.http.get(f"{image['url']}/metadata").json()["lineage"] for image in items]


def test_a_class_without_training_images_is_named_at_once(bench: Workbench) -> None:
    read = create_empty(bench.http, classes=[{"name": name, "prompts": ["x"]} for name in ("fox", "dog", "cat")])
    upload(bench.http, read["id"], [picture(1)], class_name="fox")
    upload(bench.http, read["id"], [picture(2)], class_name="dog", split="test")
    answer = train(bench, read)
    assert (answer.status_code, answer.json()["code"]) == (422, "class_without_images")
    assert answer.json()["errors"][0]["pointer"] == "#/dataset_id"
    assert "2 of 3 have none: dog, cat" in answer.json()["detail"]
    assert bench.http.get("/jobs").json()["items"] == []


def test_a_class_that_lost_its_images_before_the_job_began_fails_it_with_the_same_word(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=1)
    job_id = train(bench, read).json()["id"]
    with bench.db.transaction() as session:
        session.query(Image).where(Image.class_index == 1).delete()
    folder = DataFolder(bench.data_dir)
    handler = TrainJob(bench.db, folder, FeatureCache(folder.features), bench.client, bench.images)
    with pytest.raises(AppError, match="dog") as refused:
        run_job(bench.db, job_id, handler)
    assert refused.value.code == "class_without_images"


def test_an_incomplete_dataset_trains_when_that_is_allowed(bench: Workbench) -> None:
    read = lacking(bench)
    refused = train(bench, read)
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_not_ready")
    assert "2 images are missing (dog: 2 train)" in refused.json()["detail"]
    assert "allow_incomplete" in refused.json()["detail"]
    answer = train(bench, read, allow_incomplete=True)
    assert (answer.status_code, answer.json()["code"]) == (422, "class_without_images")
    assert upload(bench.http, read["id"], [picture(1)], class_name="dog").status_code == 201
    answer = train(bench, read, allow_incomplete=True)
    assert (answer.status_code, answer.json()["progress"]["total"]) == (202, 3 + 1)
    assert train(bench, read, allow_incomplete="yes").status_code == 422


def test_uploads_fill_places_until_the_dataset_is_ready(bench: Workbench) -> None:
    read = lacking(bench)
    assert [place["position"] for place in read["missing"]] == [0, 1]
    assert read["progress"]["done"] == 2
    assert upload(bench.http, read["id"], [picture(1)], class_name="fox").status_code == 201
    assert bench.read(read["id"])["status"] == "incomplete"
    assert upload(bench.http, read["id"], [picture(2)], class_name="dog").status_code == 201
    read = bench.read(read["id"])
    assert (read["status"], [place["position"] for place in read["missing"]]) == ("incomplete", [1])
    assert read["progress"]["done"] == 3
    assert upload(bench.http, read["id"], [picture(3), picture(4)], class_name="dog").status_code == 201
    read = bench.read(read["id"])
    assert (read["status"], read["missing"], read["num_images"]) == ("ready", [], 6)
    assert read["progress"]["done"] == read["progress"]["total"] == 4
    assert train(bench, read).status_code == 202
    with bench.db.snapshot() as session:
        dogs = session.query(Image).where(Image.class_index == 1, Image.decision == "kept").order_by(Image.position)
        assert [(image.position, image.source) for image in dogs] == [(k, "real") for k in range(3)]


@pytest.mark.parametrize("way", ["retry", "extend"])
def test_an_incomplete_dataset_is_completed_by_further_attempts(bench: Workbench, way: str) -> None:
    read = lacking(bench)
    tried = {lineage["seed"] for lineage in lineages(bench, read, decision="rejected")}
    assert len(tried) == 4
    see_everything(bench)
    if way == "retry":
        answer = bench.http.post(f"/jobs/{read['job_id']}/retry")
        assert answer.status_code == 202, answer.text
        result = bench.work(answer.json()["id"])
        assert result == {"dataset_id": read["id"], "num_images": 4, "num_missing": 0}
    else:
        plan = bench.http.post(f"/datasets/{read['id']}/extend?dry_run=true", json={"train_per_class": 1}).json()
        assert plan["num_images"] == 4
        bench.work(bench.extend(read, train_per_class=1)["job_id"])
    read = bench.read(read["id"])
    assert (read["status"], read["missing"], read["num_rejected"]) == ("ready", [], 4)
    dogs = lineages(bench, read, **{"class": "dog"})
    assert sorted(lineage["attempt"] for lineage in dogs) == ([2, 2] if way == "retry" else [0, 2, 2])
    assert not tried & {lineage["seed"] for lineage in dogs}
    assert len(bench.files("d")) == read["num_images"]
    done = bench.http.post(f"/jobs/{read['job_id']}/retry")
    assert (done.status_code, done.json()["code"]) == (409, "job_not_failed")


def test_what_stays_empty_is_tried_with_new_seeds_each_time(bench: Workbench) -> None:
    read = lacking(bench)
    for turn in (1, 2):
        bench.work(bench.http.post(f"/jobs/{read['job_id']}/retry").json()["id"])
        read = bench.read(read["id"])
        assert (read["status"], len(read["missing"])) == ("incomplete", 2)
        rejected = lineages(bench, read, decision="rejected")
        attempts = sorted(lineage["attempt"] for lineage in rejected)
        assert attempts == sorted([*range(2 * turn + 2), *range(2 * turn + 2)])
        assert len({lineage["seed"] for lineage in rejected}) == len(rejected)


def test_a_completion_that_was_cancelled_is_retried_where_it_was(bench: Workbench) -> None:
    read = lacking(bench)
    see_everything(bench)
    job_id = bench.http.post(f"/jobs/{read['job_id']}/retry").json()["id"]
    with pytest.raises(JobCancelled):
        run_job(bench.db, job_id, bench.handler, lambda: bench.read(read["id"])["num_images"] >= 3)
    with bench.db.transaction() as session:
        record.request_cancel(session, job_id, bench.handler.on_end)
    assert bench.read(read["id"])["status"] == "cancelled"
    bench.work(bench.http.post(f"/jobs/{job_id}/retry").json()["id"])
    read = bench.read(read["id"])
    assert (read["status"], read["num_images"]) == ("ready", 4)
    assert [lineage["attempt"] for lineage in lineages(bench, read, **{"class": "dog"})] == [2, 2]


def test_uploads_that_fill_places_stay_in_them_when_the_dataset_grows(bench: Workbench) -> None:
    read = lacking(bench)
    see_everything(bench)
    upload(bench.http, read["id"], [picture(1)], class_name="dog")
    upload(bench.http, read["id"], [picture(2)], class_name="fox")
    bench.work(bench.extend(bench.read(read["id"]), train_per_class=1)["job_id"])
    with bench.db.snapshot() as session:
        kept = session.query(Image).where(Image.decision == "kept").order_by(Image.class_index, Image.position)
        places = [(image.class_index, image.position, image.source) for image in kept]
    foxes = [(0, 0, "synthetic"), (0, 1, "synthetic"), (0, 2, "synthetic"), (0, 3, "real")]
    assert places == [*foxes, (1, 0, "real"), (1, 1, "synthetic"), (1, 2, "synthetic")]
    assert bench.read(read["id"])["status"] == "ready"


def test_a_train_job_that_could_not_make_its_dataset_goes_on_with_further_attempts(bench: Workbench) -> None:
    bench.models.clip.score = lambda _image, text: 5.0 * ("fox" in text)
    folder = DataFolder(bench.data_dir)
    handler = TrainJob(bench.db, folder, FeatureCache(folder.features), bench.client, bench.images)
    body = {"name": "d", "train_per_class": 1, "test_per_class": 0, **RECIPE, **FILTERED}
    job_id = bench.http.post("/train-jobs", json={"dataset": body, "epochs": 1}).json()["id"]
    with pytest.raises(AppError, match="could not be generated") as failed:
        run_job(bench.db, job_id, handler)
    with bench.db.transaction() as session:
        record.begin(session, job_id)
        record.mark_failing(session, job_id, record.problem_of(failed.value))
        record.finish(session, job_id, handler.on_end, completed=False)
    see_everything(bench)
    again = bench.http.post(f"/jobs/{job_id}/retry")
    assert again.status_code == 202, again.text
    assert run_job(bench.db, again.json()["id"], handler) == {"model_id": again.json()["id"]}
    with bench.db.snapshot() as session:
        assert session.query(Dataset).one().status == "ready"
