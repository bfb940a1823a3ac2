"""Model and image files that are cut off, garbage or gone: never served, named where they are needed, and repaired."""

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.db.models import Dataset, Image, TrainedModel
from app.jobs.signals import JobCancelled
from app.services.datasets.repair_job import RepairJob
from app.services.training.job import TrainJob
from app.storage.features import FeatureCache
from app.storage.layout import DataFolder
from testing.fake_jobs import FakeJobContext, run_job
from testing.pictures import wait_until
from testing.uploads import create_empty, picture, upload
from testing.workbench import Workbench


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def make_garbage(path: Path) -> None:
    """Other bytes of the same length under the same times, as a failing disk gives them."""
    status = path.stat()
    path.write_bytes(bytes(status.st_size))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def put_a_folder_there(path: Path) -> None:
    path.unlink()
    path.mkdir()


def put_a_link_there(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def put_a_pipe_there(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut off": (cut_off, "damaged"),
    "empty": (lambda path: path.write_bytes(b""), "damaged"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "damaged"),
    "garbage": (make_garbage, "damaged"),
    "gone": (Path.unlink, "missing"),
    "a folder": (put_a_folder_there, "missing"),
    "a link": (put_a_link_there, "missing"),
    "a pipe": (put_a_pipe_there, "missing"),
}
every_fault = pytest.mark.parametrize(("spoil", "word"), FAULTS.values(), ids=FAULTS.keys())


def images(bench: Workbench) -> list[Image]:
    """All rows of images in the order of their paths."""
    with bench.db.snapshot() as session:
        return session.query(Image).order_by(Image.path).all()


def repair_job(bench: Workbench, dataset_id: str) -> str:
    answer = bench.http.post(f"/datasets/{dataset_id}/repair")
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/jobs/{answer.json()['id']}"
    return answer.json()["id"]


def repair(bench: Workbench, dataset_id: str) -> dict:
    job_id = repair_job(bench, dataset_id)
    bench.handler = RepairJob(bench.db, DataFolder(bench.data_dir), bench.client)
    return bench.work(job_id)


def train_handler(bench: Workbench) -> TrainJob:
    folder = DataFolder(bench.data_dir)
    return TrainJob(bench.db, folder, FeatureCache(folder.features), bench.client, bench.images)


def set_aside(bench: Workbench) -> list[bytes]:
    return [path.read_bytes() for path in (bench.data_dir / ".lost+found").rglob("*") if path.is_file()]


@every_fault
def test_no_damaged_byte_is_served(bench: Workbench, spoil: Callable[[Path], None], word: str) -> None:
    made = bench.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).json()["images"][0]
    sound = bench.http.get(made["url"])
    assert hashlib.sha256(sound.content).hexdigest() == made["sha256"]
    spoil(bench.data_dir / images(bench)[0].path)
    for headers in ({}, {"Range": "bytes=0-3"}, {"If-Range": sound.headers["etag"], "Range": "bytes=1-"}):
        answer = bench.http.get(made["url"], headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (410, f"image_file_{word}")
        assert "etag" not in answer.headers
    judged = {"labels": ["a", "b"], "image_ids": [made["id"]]}
    for path, body in (("/clip-score", judged), ("/classify", {"image_ids": [made["id"]]})):
        answer = bench.http.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (410, f"image_file_{word}")
        assert answer.json()["errors"][0]["pointer"] == "#/image_ids/0"
        assert made["id"] in answer.json()["detail"]
    assert bench.http.get(f"{made['url']}/metadata").status_code == 200
    assert bench.http.get("/livez").status_code == 200


@every_fault
def test_no_archive_holds_a_damaged_file(bench: Workbench, spoil: Callable[[Path], None], word: str) -> None:
    read = bench.make("d", train_per_class=2)
    path = f"/datasets/{read['id']}"
    with zipfile.ZipFile(io.BytesIO(bench.http.get(f"{path}/archive.zip").content)) as zipped:
        assert zipped.testzip() is None
    lost = images(bench)[1]
    spoil(bench.data_dir / lost.path)
    for url in (f"{path}/archive.zip", f"{path}/shards/0.tar"):
        answer = bench.http.get(url)
        assert (answer.status_code, answer.json()["code"]) == (410, f"image_file_{word}")
        assert lost.id in answer.json()["detail"]
        assert f"POST {path}/repair" in answer.json()["detail"]


def test_a_sound_file_is_hashed_once(bench: Workbench) -> None:
    """Not by a clock: a version that was hashed is known, another one of the same size is not."""
    made = bench.http.post("/generate", json={"prompt": "a fox", "num_inference_steps": 1}).json()["images"][0]
    path = bench.data_dir / images(bench)[0].path
    long_ago = path.stat().st_mtime - 60
    os.utime(path, (long_ago, long_ago))
    for _ in range(3):
        assert bench.http.get(made["url"]).status_code == 200
    make_garbage(path)
    assert bench.http.get(made["url"]).json()["code"] == "image_file_damaged"


@every_fault
def test_a_train_job_names_the_images_that_have_no_sound_file(
    bench: Workbench, spoil: Callable[[Path], None], word: str
) -> None:
    read = bench.make("d", train_per_class=4)
    lost = images(bench)[1:6:2]
    for image in lost:
        spoil(bench.data_dir / image.path)
    job_id = bench.http.post("/train-jobs", json={"dataset_id": read["id"], "epochs": 1}).json()["id"]
    with pytest.raises(Exception, match="3 images have no sound file") as failed:
        run_job(bench.db, job_id, train_handler(bench))
    assert failed.value.code == f"image_file_{word}"
    assert lost[0].id in failed.value.detail
    assert lost[0].path in failed.value.detail
    told = {(error.pointer, error.detail, error.code) for error in failed.value.errors}
    assert told == {(f"/images/{image.id}", image.path, f"image_file_{word}") for image in lost}


@every_fault
def test_a_model_without_a_sound_file_is_told(bench: Workbench, spoil: Callable[[Path], None], word: str) -> None:
    read = bench.make("d", train_per_class=1)
    job_id = bench.http.post("/train-jobs", json={"dataset_id": read["id"], "epochs": 1, "name": "m"}).json()["id"]
    run_job(bench.db, job_id, train_handler(bench))
    assert bench.http.get(f"/models/{job_id}/weights").status_code == 200
    with bench.db.snapshot() as session:
        path = bench.data_dir / session.get_one(TrainedModel, job_id).path
    spoil(path)
    answer = bench.http.get(f"/models/{job_id}/weights")
    assert (answer.status_code, answer.json()["code"]) == (410, f"model_file_{word}")
    answer = bench.http.post("/classify", json={"image_id": images(bench)[0].id, "model": "m"})
    assert (answer.status_code, answer.json()["code"]) == (410, f"model_file_{word}")
    assert answer.json()["errors"][0]["pointer"] == "#/model"
    assert bench.http.get(f"/models/{job_id}").status_code == 200


@every_fault
def test_a_repair_gives_lost_images_their_bytes_again(
    bench: Workbench, spoil: Callable[[Path], None], word: str
) -> None:
    bench.models.clip.score = lambda image, text: 3.0 * (("fox" in text) == (image.getpixel((3, 3))[1] % 3 > 0))
    read = bench.make("d", train_per_class=4, test_per_class=1, filter={}, max_attempts=5)
    rows = images(bench)
    assert {row.decision for row in rows} == {"kept", "rejected"}
    before = {row.path: (bench.data_dir / row.path).read_bytes() for row in rows}
    for row in rows[::2]:
        spoil(bench.data_dir / row.path)
    result = repair(bench, read["id"])
    assert result["num_checked"] == len(rows)
    assert (result["num_restored"], result["num_redrawn"]) == (len(rows[::2]), 0)
    assert (result["unrestored"], result["redrawn"]) == ([], [])
    assert {path: (bench.data_dir / path).read_bytes() for path in before} == before
    assert [(row.id, row.sha256) for row in images(bench)] == [(row.id, row.sha256) for row in rows]
    assert bench.http.get(f"/datasets/{read['id']}/archive.zip").status_code == 200
    if word == "damaged":
        assert len(set_aside(bench)) == len(rows[::2])
    again = repair(bench, read["id"])
    assert (again["num_restored"], again["num_checked"]) == (0, len(rows))


def test_a_repair_tells_uploaded_images_and_the_same_file_takes_its_place(bench: Workbench) -> None:
    created = create_empty(bench.http)
    ids = [one["image_id"] for one in upload(bench.http, created["id"], [picture(1), picture(2)]).json()["files"]]
    lost = images(bench)[0]
    cut_off(bench.data_dir / lost.path)
    damaged = (bench.data_dir / lost.path).read_bytes()
    result = repair(bench, created["id"])
    told = {"image_id": lost.id, "path": lost.path, "code": "image_file_damaged"}
    assert (result["num_unrestored"], result["unrestored"]) == (1, [told])
    assert (bench.data_dir / lost.path).read_bytes() == damaged
    again = upload(bench.http, created["id"], [picture(1), picture(2)]).json()["files"]
    assert again[0]["image_id"] == lost.id == ids[0]
    assert again[1]["refused"]["code"] == "duplicate_image"
    assert bench.http.get(f"/images/{lost.id}").status_code == 200
    assert set_aside(bench) == [damaged]
    assert repair(bench, created["id"])["num_unrestored"] == 0


def test_an_image_that_this_node_draws_differently_is_a_new_one(bench: Workbench) -> None:
    """As by another device, number format or release: the same seed, other bytes."""
    read = bench.make("d", train_per_class=2)
    lost, *others = images(bench)
    with bench.db.transaction() as session:
        session.get_one(Image, lost.id).sha256 = "0" * 64
    result = repair(bench, read["id"])
    assert (result["num_restored"], result["num_redrawn"], result["num_unrestored"]) == (0, 1, 0)
    assert (result["redrawn"][0]["image_id"], result["redrawn"][0]["path"]) == (lost.id, lost.path)
    new = bench.http.get(f"/images/{result['redrawn'][0]['new_image_id']}")
    assert hashlib.sha256(new.content).hexdigest() == new.headers["etag"].strip('"')
    assert bench.http.get(f"/images/{lost.id}").status_code == 404
    rows = images(bench)
    assert [(row.split, row.class_index, row.position, row.seed) for row in rows] == [
        (row.split, row.class_index, row.position, row.seed) for row in (lost, *others)
    ]
    assert rows[0].lineage["redrawn_for"]["id"] == lost.id
    assert bench.http.get(f"/datasets/{read['id']}/archive.zip").status_code == 200


def test_a_cancelled_repair_leaves_whole_files_and_another_ends_it(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=4)
    before = bench.files("d")
    for row in images(bench):
        cut_off(bench.data_dir / row.path)
    job_id = repair_job(bench, read["id"])
    handler = RepairJob(bench.db, DataFolder(bench.data_dir), bench.client)
    num_sound = lambda: sum(data == before[name] for name, data in bench.files("d").items())  # noqa: E731
    with pytest.raises(JobCancelled):
        run_job(bench.db, job_id, handler, lambda: num_sound() >= 2)
    assert 2 <= num_sound() < len(before)
    bench.http.post(f"/jobs/{job_id}/cancel")
    assert repair(bench, read["id"])["num_restored"] == len(before) - 2 or num_sound() == len(before)
    assert bench.files("d") == before


def test_a_chunk_that_is_done_again_tells_what_its_first_run_restored(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=2)
    cut_off(bench.data_dir / images(bench)[0].path)
    job_id = repair_job(bench, read["id"])
    handler = RepairJob(bench.db, DataFolder(bench.data_dir), bench.client)
    job, recorded = FakeJobContext(bench.db, job_id, handler), []

    def replayed(_name: str, fn: Callable[[], object]) -> object:
        recorded[:] = recorded or [fn()]
        return recorded[0]

    job.step = replayed  # type: ignore[method-assign]
    item = {"dataset_id": read["id"], "start": 0, "stop": 4}
    first = handler.run_chunk(job, item)  # type: ignore[arg-type]
    assert first == handler.run_chunk(job, item)  # type: ignore[arg-type]
    assert first["num_restored"] == 1


def test_nothing_else_works_on_a_dataset_under_repair(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=1)
    job_id = repair_job(bench, read["id"])
    http, path = bench.http, f"/datasets/{read['id']}"
    answers: list[httpx.Response] = [
        http.post(f"{path}/repair"),
        http.post(f"{path}/extend", json={"train_per_class": 1}),
        http.post("/train-jobs", json={"dataset_id": read["id"]}),
        http.delete(path),
        upload(http, read["id"], [picture(1)], class_name="fox"),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(409, "dataset_in_use")] * 5
    assert http.get(f"{path}/archive.zip").status_code == 200
    http.post(f"/jobs/{job_id}/cancel")
    retried = http.post(f"/jobs/{job_id}/retry")
    assert (retried.status_code, retried.json()["kind"]) == (202, "repair")
    assert http.post(f"/jobs/{job_id}/retry").json()["code"] == "dataset_in_use"


def test_a_repair_is_submitted_like_any_job(bench: Workbench) -> None:
    read = bench.make("d", train_per_class=1)
    path, key = f"/datasets/{read['id']}/repair", {"Idempotency-Key": "k"}
    first = bench.http.post(path, headers=key)
    again = bench.http.post(path, headers=key)
    assert (again.status_code, again.json(), again.headers["idempotency-replayed"]) == (202, first.json(), "true")
    assert first.json()["progress"]["total"] == 2
    assert bench.http.post("/datasets/none/repair").status_code == 404
    bench.http.post(f"/jobs/{first.json()['id']}/cancel")
    with bench.db.transaction() as session:
        session.get_one(Dataset, read["id"]).pack_revision = "of yesterday"
    assert bench.http.post(path).json()["code"] == "pack_changed"


@pytest.mark.parametrize("num_spoilt", [0, 1])
def test_the_command_repairs_and_says_what_stays_lost(bench: Workbench, num_spoilt: int) -> None:
    created = create_empty(bench.http)
    upload(bench.http, created["id"], [picture(1), picture(2)])
    for image in images(bench)[:num_spoilt]:
        (bench.data_dir / image.path).unlink()
    bench.handler = RepairJob(bench.db, DataFolder(bench.data_dir), bench.client)
    with ThreadPoolExecutor(1) as pool:
        command = ["dataset", "repair", "fox-dog", "--server", str(bench.http.base_url)]
        running = pool.submit(CliRunner().invoke, app, command)
        wait_until(lambda: bench.http.get("/jobs?kind=repair").json()["items"])
        bench.work(bench.http.get("/jobs?kind=repair").json()["items"][0]["id"])
        result = running.result()
    assert result.exit_code == num_spoilt, result.output
    assert f"2 files: 0 restored, 0 drawn anew as other images, {num_spoilt} still lost" in result.output
    assert ("000000.png (image_file_missing)" in result.output) == (num_spoilt > 0)
