"""The split `validation`, from the request of a dataset over its images and reports to the training that uses it."""

from typing import Any

import pytest

from app.db.models import Image
from app.services.datasets.recipes.seeds import image_seed
from testing.uploads import picture, upload
from testing.workbench import Workbench
from tests.api.test_jobs import Desk, desk
from tests.api.test_training import made, trained

__all__ = ["desk"]  # a fixture


def test_validation_images_change_no_other_image_and_are_extended_like_them(bench: Workbench) -> None:
    bench.make("without", train_per_class=4, test_per_class=2)
    read = bench.make("with", train_per_class=4, test_per_class=2, validation_per_class=1)
    assert (read["status"], read["num_images"], read["validation_per_class"]) == ("ready", 14, 1)
    assert [(one["num_train"], one["num_validation"], one["num_test"]) for one in read["classes"]] == [(4, 1, 2)] * 2
    files, others = bench.files("with"), bench.files("without")
    assert {name: data for name, data in files.items() if not name.startswith("validation/")} == others
    assert len(files) == len(others) + 2
    with bench.db.snapshot() as session:
        image = session.query(Image).where(Image.split == "validation", Image.class_index == 1).one()
        assert image.seed == image_seed(7, "dog", "validation", 0, image.lineage["attempt"])

    answer = bench.http.post(f"/datasets/{read['id']}/extend?dry_run=true", json={"validation_per_class": 2})
    assert (answer.json()["num_images"], {one["split"] for one in answer.json()["samples"]}) == (4, {"validation"})
    grown = bench.extend(read, validation_per_class=2, train_per_class=1)
    assert bench.work(grown["job_id"])["num_images"] == 6
    bench.make("at-once", train_per_class=5, test_per_class=2, validation_per_class=3)
    assert bench.files("with") == bench.files("at-once")
    recipe = bench.http.get(f"/datasets/{read['id']}/recipe").json()
    assert recipe["validation_per_class"] == 3
    again = bench.http.post("/datasets?dry_run=true", json={**recipe, "name": "again"})
    assert again.json()["num_images"] == 20


def test_requests_without_the_field_have_no_validation_images(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=2)
    assert (read["validation_per_class"], read["classes"][0]["num_validation"]) == (0, 0)
    spec = bench.http.get(f"/jobs/{bench.extend(read, train_per_class=1)['job_id']}").json()["spec"]
    assert spec["made"] == {"train": 2, "test": 0}  # as a worker of the release before reads it


def test_a_filter_rejects_validation_images_whose_slots_an_upload_then_fills(bench: Workbench) -> None:
    bench.models.clip.score = lambda _, text: float("fox" in text)
    read = bench.make("d", train_per_class=0, validation_per_class=1, filter={}, max_attempts=2)
    assert (read["status"], read["num_rejected"], read["num_images"]) == ("incomplete", 2, 1)
    assert [(one["split"], one["class_name"], one["num_rejected"]) for one in read["missing"]] == [
        ("validation", "dog", 2)
    ]
    rejected = bench.http.get(f"/datasets/{read['id']}/images?split=validation&decision=rejected").json()["items"]
    assert [image["split"] for image in rejected] == ["validation"] * 2
    job = bench.http.post(f"/jobs/{read['job_id']}/retry").json()
    assert job["spec"]["tried"]["validation"] == 1
    bench.work(job["id"])
    assert bench.read(read["id"])["num_rejected"] == 4
    fields = {"class_name": "dog", "split": "validation"}
    assert upload(bench.http, read["id"], [picture(1)], **fields).status_code == 201
    read = bench.read(read["id"])
    assert (read["status"], read["missing"], read["classes"][1]["num_validation"]) == ("ready", [], 1)
    kept = bench.http.get(f"/images?dataset_id={read['id']}&split=validation").json()["items"]
    assert len(kept) == 2
    assert upload(bench.http, read["id"], [picture(2)], split="dev", class_name="dog").status_code == 422


@pytest.mark.parametrize("solver", ["sgd", "sweep"])
def test_a_training_chooses_by_the_datasets_own_split_and_trains_on_every_training_image(
    desk: Desk, solver: str
) -> None:
    body: dict[str, Any] = {"dataset_id": made(desk, validation_per_class=3), "epochs": 2, "head": {"solver": solver}}
    job, model = trained(desk, body)
    assert job["spec"]["validation"] is None
    assert "validation_fraction_ignored" not in [one["code"] for one in job["warnings"]]
    assert [model["metrics"][split]["synthetic"]["n"] for split in ("train", "validation", "test")] == [8, 6, 4]
    assert job["epochs"][0]["validation_loss"] is not None
    both, model = trained(desk, {**body, "validation": {"fraction": 0.5}})
    assert "validation_fraction_ignored" in [one["code"] for one in both["warnings"]]
    assert [model["metrics"][split]["synthetic"]["n"] for split in ("train", "validation", "test")] == [8, 6, 4]
    answer = desk.node.http.post(
        f"/models/{both['id']}/evaluations", json={"dataset_id": body["dataset_id"], "split": "validation"}
    )
    assert answer.status_code == 202, answer.text


def test_uploaded_validation_images_serve_early_stopping(desk: Desk) -> None:
    dataset_id = made(desk)
    fields = {"class_name": "dog", "split": "validation"}
    assert upload(desk.node.http, dataset_id, [picture(1), picture(2)], **fields).json()["num_accepted"] == 2
    job, model = trained(desk, {"dataset_id": dataset_id, "early_stopping": {"patience": 1}})
    assert (job["status"], job["spec"]["validation"]) == ("succeeded", None)
    assert (model["metrics"]["validation"]["real"]["n"], model["metrics"]["train"]["synthetic"]["n"]) == (2, 8)
