"""What a person decides about images of a dataset, and what that changes: content, training, exports, lists."""

import io
import zipfile
from typing import Any

import httpx
import pytest

from testing.uploads import CLASSES, create_empty, fill, picture, upload
from testing.workbench import Workbench
from tests.api.test_jobs import Desk, desk
from tests.api.test_training import made, trained

__all__ = ["desk"]  # a fixture


@pytest.fixture
def filled(http: httpx.Client) -> str:
    """A dataset of 12 uploads: 4 for training and 2 to test in each class."""
    dataset_id: str = create_empty(http)["id"]
    fill(http, dataset_id)
    return dataset_id


def images(http: httpx.Client, dataset_id: str, **params: Any) -> list[dict[str, Any]]:
    answer = http.get(f"/datasets/{dataset_id}/images", params={"limit": 100, **params})
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def review(http: httpx.Client, image: dict[str, Any], decision: object) -> httpx.Response:
    return http.patch(f"/datasets/{image['dataset_id']}/images/{image['id']}", json={"review": decision})


def test_a_rejected_image_leaves_the_content_and_comes_back(http: httpx.Client, filled: str) -> None:
    version = http.get(f"/datasets/{filled}/version").json()
    first, second, *_ = images(http, filled, split="train")
    assert {image["review"] for image in images(http, filled)} == {None}
    assert review(http, first, "rejected").json() == {**first, "review": "rejected"}
    assert review(http, second, "accepted").json()["review"] == "accepted"

    read = http.get(f"/datasets/{filled}").json()
    assert (read["num_images"], read["reviews"], read["status"]) == (11, {"accepted": 1, "rejected": 1}, "ready")
    assert sorted(one["num_train"] for one in read["classes"]) == [3, 4]
    changed = http.get(f"/datasets/{filled}/version").json()
    assert (changed["num_images"], changed["version"] == version["version"]) == (11, False)
    with zipfile.ZipFile(io.BytesIO(http.get(f"/datasets/{filled}/archive.zip").content)) as archive:
        assert sum(name.endswith(".png") for name in archive.namelist()) == 11
    assert len(http.get(f"/datasets/{filled}/coco.json").json()["images"]) == 11
    assert http.get(first["url"]).status_code == 200

    assert review(http, first, None).json() == first
    assert http.get(f"/datasets/{filled}/version").json() == version


def test_lists_are_filtered_by_review_source_and_score(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=3, filter={"threshold": 0.0})
    first, second, *others = images(bench.http, read["id"])
    review(bench.http, first, "rejected")
    review(bench.http, second, "accepted")
    ids = {state: [one["id"] for one in images(bench.http, read["id"], review=state)] for state in ("rejected",)}
    assert ids == {"rejected": [first["id"]]}
    assert [one["id"] for one in images(bench.http, read["id"], review="accepted")] == [second["id"]]
    assert [one["id"] for one in images(bench.http, read["id"], review="unreviewed")] == [one["id"] for one in others]
    assert len(images(bench.http, read["id"], source="synthetic")) == 6
    assert images(bench.http, read["id"], source="real") == []

    scores = sorted(one["clip_score"] for one in [first, second, *others])
    low = images(bench.http, read["id"], max_clip_score=scores[2])
    high = images(bench.http, read["id"], min_clip_score=scores[3])
    assert len(low) >= 3
    assert all(one["clip_score"] <= scores[2] for one in low)
    assert len(high) >= 3
    assert all(one["clip_score"] >= scores[3] for one in high)
    for bad in ({"review": "maybe"}, {"min_clip_score": "nan"}, {"max_clip_score": 101}, {"source": "drawn"}):
        assert bench.http.get(f"/datasets/{read['id']}/images", params=bad).status_code == 422


def test_a_place_that_was_rejected_is_not_filled_again(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=2)
    review(bench.http, images(bench.http, read["id"], **{"class": "fox"})[0], "rejected")
    bench.work(bench.extend(read, train_per_class=1)["job_id"])
    after = bench.read(read["id"])
    assert (after["status"], after["num_images"], after["progress"]["done"]) == ("ready", 5, 6)


def test_training_and_its_report_leave_rejected_images_out(desk: Desk) -> None:
    http, dataset_id = desk.node.http, made(desk)
    fox = images(http, dataset_id, split="train", **{"class": "Fox!"})
    for image in fox[:2]:
        assert review(http, image, "rejected").status_code == 200
    job, model = trained(desk, {"dataset_id": dataset_id, "epochs": 1})
    assert model["metrics"]["train"]["synthetic"]["n"] == 6
    assert model["lineage"]["dataset"]["num_images"] == 10
    report = http.get(f"/train-jobs/{job['id']}/report").json()
    assert sum(one["num_train"] for one in report["lineage"]["classes"]) == 6


def test_a_class_without_an_accepted_image_is_not_trained(http: httpx.Client, filled: str) -> None:
    for image in images(http, filled, split="train", **{"class": "dog"}):
        review(http, image, "rejected")
    answer = http.post("/train-jobs", json={"dataset_id": filled})
    assert (answer.status_code, answer.json()["code"]) == (422, "class_without_images")


def test_a_dataset_that_a_job_reads_is_not_reviewed(http: httpx.Client, filled: str) -> None:
    image = images(http, filled)[0]
    job = http.post("/train-jobs", json={"dataset_id": filled}).json()
    answer = review(http, image, "rejected")
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_in_use")
    assert review(http, image, None).json() == image  # changes nothing
    http.post(f"/jobs/{job['id']}/cancel")
    assert review(http, image, "rejected").status_code == 200


def test_what_cannot_be_reviewed_is_refused(bench: Workbench) -> None:
    bench.models.clip.score = lambda _, text: float("fox" in text)
    read = bench.make("d", train_per_class=1, filter={}, max_attempts=1)
    by_filter = images(bench.http, read["id"], decision="rejected")[0]
    assert review(bench.http, by_filter, "accepted").status_code == 404
    kept = images(bench.http, read["id"])[0]
    other = create_empty(bench.http, "other")
    assert review(bench.http, {**kept, "dataset_id": other["id"]}, "rejected").status_code == 404
    assert review(bench.http, {**kept, "id": "none"}, "rejected").status_code == 404
    bodies: list[object] = [{}, {"review": "maybe"}, {"review": 1}, {"review": None, "more": 1}, []]
    for body in bodies:
        path = f"/datasets/{read['id']}/images/{kept['id']}"
        assert bench.http.patch(path, json=body).status_code == 422, body


def test_a_rejected_upload_is_still_known(http: httpx.Client, filled: str) -> None:
    data = picture(77)
    image_id = upload(http, filled, [data]).json()["files"][0]["image_id"]
    review(http, {"dataset_id": filled, "id": image_id}, "rejected")
    again = upload(http, filled, [data], class_name=CLASSES[1]).json()["files"][0]
    assert again["refused"]["duplicate_of"] == image_id
