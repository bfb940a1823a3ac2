"""Real images into datasets over HTTP: what is taken, what is refused, and what stays behind."""

import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from app.db.models import Job
from app.db.session import Database
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve
from testing.uploads import CLASSES, create_empty, picture, upload


def codes(answer: httpx.Response) -> list[str | None]:
    return [entry["refused"] and entry["refused"]["code"] for entry in answer.json()["files"]]


def files_of(node: Node) -> list[str]:
    folder = node.settings.data_dir / "datasets"
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_are_taken_or_refused_one_by_one(http: httpx.Client, node: Node) -> None:
    created = create_empty(http)
    assert (created["status"], created["job_id"], created["num_images"]) == ("empty", None, 0)
    sound, gif = picture(1), picture(2, "GIF")
    sent = [sound, gif, sound[:90], b"", picture(3, "WEBP", lossless=True), picture(4, "JPEG", quality=95), sound]
    answer = upload(http, created["id"], sent)
    assert answer.status_code == 201
    taken, refused = answer.json()["num_accepted"], answer.json()["num_refused"]
    assert (taken, refused) == (3, 4)
    expected = [None, "unsupported_image", "corrupt_image", "unsupported_image", None, None, "duplicate_image"]
    assert codes(answer) == expected
    assert [entry["index"] for entry in answer.json()["files"]] == list(range(7))
    first = answer.json()["files"][0]["image_id"]
    assert answer.json()["files"][6]["refused"]["duplicate_of"] == first

    read = http.get(f"/datasets/{created['id']}").json()
    assert (read["status"], read["num_images"], read["progress"]["done"]) == ("ready", 3, 0)
    folder = read["classes"][0]["folder"]
    names = [f"fox-dog/train/{folder}/{name}" for name in ("000000.png", "000001.png", "000002.jpeg")]
    assert files_of(node) == names
    assert len(ImageFolder(node.settings.data_dir / "datasets" / "fox-dog" / "train")) == 3
    image = http.get(f"/images/{first}/metadata").json()
    assert (image["source"], image["seed"], image["class_name"]) == ("real", None, CLASSES[0])


def test_large_files_are_taken_or_refused_as_small_ones_are(http: httpx.Client) -> None:
    """They are read by another process."""
    created = create_empty(http)
    file = picture(1, size=(1_100, 1_000))
    answer = upload(http, created["id"], [file, file[:-40_000], file])
    assert codes(answer) == [None, "corrupt_image", "duplicate_image"]
    stored = http.get(f"/images/{answer.json()['files'][0]['image_id']}").content
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(stored))), np.asarray(Image.open(io.BytesIO(file))))


def test_pixels_are_kept_upright_and_nothing_else(http: httpx.Client) -> None:
    created = create_empty(http)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "SECRET CAMERA"
    answer = upload(http, created["id"], [picture(5, exif=exif)]).json()
    stored = http.get(f"/images/{answer['files'][0]['image_id']}").content
    image = Image.open(io.BytesIO(stored))
    assert (image.format, image.size, image.info) == ("PNG", (12, 16), {})
    assert b"SECRET" not in stored
    upright = Image.open(io.BytesIO(picture(5))).rotate(-90, expand=True)
    assert np.array_equal(np.asarray(image), np.asarray(upright))


def test_a_picture_is_a_duplicate_in_whatever_file_class_and_split_it_comes(http: httpx.Client) -> None:
    created = create_empty(http)
    jpeg = picture(7, "JPEG")
    ids = [entry["image_id"] for entry in upload(http, created["id"], [picture(6), jpeg]).json()["files"]]
    exported = http.get(f"/images/{ids[1]}").content
    again = [picture(6, "WEBP", lossless=True), picture(6, compress_level=0), jpeg, exported]
    answer = upload(http, created["id"], again, class_name="dog", split="test")
    assert answer.status_code == 200
    assert codes(answer) == ["duplicate_image"] * 4
    assert [entry["refused"]["duplicate_of"] for entry in answer.json()["files"]] == [ids[0], ids[0], ids[1], ids[1]]
    other = create_empty(http, name="other")
    assert codes(upload(http, other["id"], [picture(6)])) == [None]


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"class_name": "cat"}, 422, "class_not_found"),
        ({"split": "../train"}, 422, None),
        ({"class_name": ""}, 422, None),
        ({"folder": "x"}, 422, "unknown_field"),
    ],
)
def test_forms_that_are_refused_whole(http: httpx.Client, fields: dict, status: int, code: str | None) -> None:
    answer = upload(http, create_empty(http)["id"], [picture(1)], **fields)
    assert answer.status_code == status, answer.text
    found = {answer.json()["code"], *(error["code"] for error in answer.json().get("errors", []))}
    assert code is None or code in found


def test_bodies_that_are_no_upload(http: httpx.Client) -> None:
    path = f"/datasets/{create_empty(http)['id']}/images"
    form = {"class_name": "dog", "split": "train"}
    assert http.post(path, json=form).status_code == 415
    unknown = http.post(path, data=form, files=[("image", picture(1))]).json()
    assert "unknown_field" in [error["code"] for error in unknown["errors"]]
    lacking = http.post(path, files={"class_name": (None, "dog"), "split": (None, "train")}).json()
    assert [error["code"] for error in lacking["errors"]] == ["missing"]
    assert http.post(path, data=form, files=[("files", b"x")] * 101).json()["code"] == "malformed_form"
    assert upload(http, "no-such", [picture(1)]).status_code == 404


def test_a_dataset_that_a_job_makes_or_reads_takes_nothing(http: httpx.Client, node: Node) -> None:
    making = create_empty(http, train_per_class=1)
    answer = upload(http, making["id"], [picture(1)])
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_in_use")
    ready = create_empty(http, name="ready")
    assert upload(http, ready["id"], [picture(1)]).status_code == 201
    assert upload(http, ready["id"], [picture(3)], class_name="dog").status_code == 201
    assert http.post("/train-jobs", json={"dataset_id": ready["id"]}).status_code == 202
    assert upload(http, ready["id"], [picture(2)]).status_code == 409
    assert len(files_of(node)) == 2


def test_positions_go_on_behind_those_of_generated_images(http: httpx.Client, node: Node) -> None:
    created = create_empty(http, train_per_class=3)
    http.post(f"/jobs/{created['job_id']}/cancel")
    assert upload(http, created["id"], [picture(1), picture(2)]).json()["num_accepted"] == 2
    assert [Path(name).name for name in files_of(node)] == ["000003.png", "000004.png"]
    read = http.get(f"/datasets/{created['id']}").json()
    assert (read["status"], read["num_images"], read["progress"]["done"]) == ("cancelled", 2, 0)


@pytest.mark.parametrize("has_images", [False, True])
def test_what_is_not_the_datasets_own_is_set_aside_by_the_next_upload(
    http: httpx.Client, node: Node, has_images: bool
) -> None:
    created = create_empty(http)
    if has_images:
        upload(http, created["id"], [picture(1)])
    folder = node.settings.data_dir / "datasets" / "fox-dog" / "test" / "dog"
    folder.mkdir(parents=True)
    for name in ("000000.png", "000000-7.png"):  # an uploaded and a generated image, both without a row
        (folder / name).write_bytes(picture(8))
    assert upload(http, created["id"], [picture(9)]).status_code == 201
    # What was generated may be a job's, unless the dataset has no image at all.
    moved = {path.name for path in node.settings.data_dir.glob(".lost+found/*/datasets/fox-dog/test/dog/*")}
    assert moved == ({"000000.png"} if has_images else {"000000.png", "000000-7.png"})
    assert {path.name for path in folder.parent.rglob("*-7.png")} == {"000000-7.png"} - moved


def test_what_dead_uploads_left_is_removed_at_the_start(tmp_path: Path, database_url: str) -> None:
    settings = make_settings(tmp_path / "data", database_url)
    with serve(settings, FakeModels()) as node:
        assert upload(node.http, create_empty(node.http)["id"], [picture(9)], split="test").status_code == 201
        create_empty(node.http, name="making", train_per_class=1)
    (stored,) = (settings.data_dir / "datasets").rglob("*.png")
    stray, made = stored.with_name("000007.png"), stored.with_name("000007-7.png")
    alone = settings.data_dir / "datasets" / "fox-dog" / "train" / "dog" / "000000.jpeg"
    other = settings.data_dir / "datasets" / "making" / "train" / "dog" / "000000.png"
    for path in (stray, made, alone, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(8))
    with serve(settings, FakeModels()) as node:
        assert node.http.get("/livez").status_code == 200
    # What a job may be writing to is left for another time.
    left = {path for path in (settings.data_dir / "datasets").rglob("*") if path.is_file()}
    assert left == {stored, other}
    assert not alone.parent.exists()


def test_a_model_trained_on_uploads_records_what_it_saw(http: httpx.Client, node: Node) -> None:
    created = create_empty(http)
    empty = http.post("/train-jobs", json={"dataset_id": created["id"]})
    assert (empty.status_code, empty.json()["code"]) == (409, "dataset_not_ready")
    assert upload(http, created["id"], [picture(1)], split="test").status_code == 201
    untrainable = http.post("/train-jobs", json={"dataset_id": created["id"]})
    assert (untrainable.status_code, untrainable.json()["code"]) == (422, "dataset_empty")
    upload(http, created["id"], [picture(2)])
    answer = http.post("/train-jobs", json={"dataset_id": created["id"]})
    assert (answer.status_code, answer.json()["code"]) == (422, "class_without_images")
    upload(http, created["id"], [picture(3)], class_name="dog")
    job_id = http.post("/train-jobs", json={"dataset_id": created["id"], "epochs": 3}).json()["id"]
    db = Database(node.settings.resolved_database_url)
    with db.snapshot() as session:
        job = session.get(Job, job_id)
        assert job is not None
        assert job.progress_total == 3 + 3
    db.close()
