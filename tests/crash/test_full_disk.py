"""A node on a real disk that is full, by others' files: new work is refused, deletions and reading go on, jobs wait."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app.cli.main import app
from app.db.models import TrainedModel
from app.storage.layout import DataFolder
from testing.old_images import DAY, add_generations, check_files
from testing.pictures import job_row
from testing.small_disk import SmallDisk, small_disk
from testing.trained_models import add_model
from testing.uploads import create_empty, picture, upload
from testing.waiting import wait_until
from tests.crash.asking import dataset_body, submit, wait_for_end
from tests.crash.house import House, end, open_house

DISK_MB = 64
RESERVE_MB = 16
MEGABYTE = 2**20
SKETCH = {"prompt": "a sketch of a fox", "num_inference_steps": 1}


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    with small_disk(DISK_MB) as disk:
        yield disk


@pytest.fixture
def house(disk: SmallDisk, database_url: str, request: pytest.FixtureRequest) -> Iterator[House]:
    """A node and its worker on the small disk, where its database lies, too, if that is a file."""
    if database_url.startswith("sqlite"):
        (disk.root / "data").mkdir()
        path = disk.root / "data" / "foxhound.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        database_url = f"sqlite:///{path}"
    with open_house(disk.root, database_url, reserve_mb=RESERVE_MB) as house:
        house.mend()
        yield house


def made(house: House, name: str, **changes: int) -> dict[str, Any]:
    """Make a dataset to its end."""
    dataset = submit(house, dataset_body(name, **changes)).answer
    assert wait_for_end(house, dataset["job_id"]) == "succeeded"
    return dataset


def refusals(house: House, dataset: dict[str, Any], cancelled: dict[str, Any]) -> list[httpx.Response]:
    """Hand new work in by every way."""
    http, later = house.http, {"Prefer": "respond-async"}
    with house.db.snapshot() as session:
        model_id = session.scalars(select(TrainedModel.id)).one()
    return [
        http.post("/generate", json=SKETCH),
        http.post("/generate", json=SKETCH, headers={"Accept": "text/event-stream"}),
        http.post("/generate", json=SKETCH, headers={**later, "Idempotency-Key": "later"}),
        http.post("/datasets", json=dataset_body("another")),
        http.post("/datasets", json=dataset_body("for-uploads", train_per_class=0, test_per_class=0)),
        http.post(f"/datasets/{dataset['id']}/repair"),
        http.post(f"/models/{model_id}/evaluations", json={"dataset_id": dataset["id"]}),
        http.post(f"/datasets/{dataset['id']}/extend", json={"train_per_class": 1}),
        http.post("/train-jobs", json={"dataset_id": dataset["id"]}),
        http.post("/train-jobs", json={"dataset": dataset_body("brought")}),
        http.post(f"/jobs/{cancelled['job_id']}/retry"),
        upload(http, dataset["id"], [picture(1)], class_name="fox"),
    ]


def assert_refused(house: House, dataset: dict[str, Any], cancelled: dict[str, Any]) -> None:
    # Measured once a second; before that a write fails by itself.
    wait_until(lambda: "nearly full" in house.http.post("/generate", json=SKETCH).text)
    before = [house.http.get(path).json() for path in ("/jobs", "/datasets", "/generations")]
    for answer in refusals(house, dataset, cancelled):
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full"), answer.request.url
    assert [house.http.get(path).json() for path in ("/jobs", "/datasets", "/generations")] == before


def assert_goes_on(house: House) -> None:
    """Expect that new work is taken and done; a key that was refused is as new."""
    wait_until(lambda: house.http.post("/generate", json=SKETCH).status_code == 200)
    headers = {"Prefer": "respond-async", "Idempotency-Key": "later"}
    job = house.http.post("/generate", json=SKETCH, headers=headers)
    assert (job.status_code, "idempotency-replayed" in job.headers) == (202, False)
    assert wait_for_end(house, job.json()["id"]) == "succeeded"
    made(house, "afterwards")


def assert_pruned(house: House, num_images: int) -> None:
    """Expect that the command of an operator reports and removes the old images."""
    settings = house.settings
    environment = {
        "FOXHOUND_DATA_DIR": str(settings.data_dir),
        "FOXHOUND_DATABASE_URL": settings.resolved_database_url,
        "FOXHOUND_RESERVE_MB": str(RESERVE_MB),
    }
    for command in (["report"], ["prune", "--dry-run"], ["prune"]):
        options = ["--days", "0.5"] if command[0] == "prune" else []
        result = CliRunner().invoke(app, ["storage", *command, *options, "--json"], env=environment)
        assert result.exit_code == 0, result.output
        told = json.loads(result.output)
        assert command == ["report"] or told["images"] == num_images
    check_files(house.db, DataFolder(house.data_dir))


@pytest.mark.parametrize("left_bytes", [RESERVE_MB * MEGABYTE // 2, 0], ids=["nearly full", "full"])
def test_what_makes_room_works_on_a_full_disk(house: House, disk: SmallDisk, left_bytes: int) -> None:
    http = house.http
    kept, dropped = made(house, "kept"), made(house, "dropped", train_per_class=20)
    folder = DataFolder(house.data_dir)
    add_model(house.db, folder, ["fox", "dog"], dataset_id=kept["id"])
    add_generations(house.db, folder, [DAY] * 100, num_bytes=10_000)
    uploads = create_empty(http, "uploads")
    assert upload(http, uploads["id"], [picture(1)]).status_code == 201
    generation = http.post("/generate", json=SKETCH).json()
    cancelled = submit(house, dataset_body("cancelled")).answer
    http.post(f"/jobs/{cancelled['job_id']}/cancel")
    wait_for_end(house, cancelled["job_id"])
    disk.fill(left_bytes)
    assert_refused(house, kept, cancelled)
    before = disk.free_bytes
    for path in (f"/datasets/{dropped['id']}", f"/datasets/{uploads['id']}", f"/generations/{generation['id']}"):
        assert http.get(path).status_code == 200
        answer = http.delete(path)
        assert answer.status_code == 204, answer.text
        assert http.get(path).status_code == 404
    assert_pruned(house, 100)
    assert not list((house.data_dir / "datasets").glob("dropped"))
    wait_until(lambda: disk.free_bytes > before)
    assert http.get(f"/datasets/{kept['id']}/archive.zip").status_code == 200
    disk.make_room()
    assert_goes_on(house)
    assert _ballast(house.data_dir) == RESERVE_MB * MEGABYTE // 8  # there again for the next time


def test_a_node_that_starts_on_a_full_disk_can_be_made_room_on(house: House, disk: SmallDisk) -> None:
    dataset = made(house, "dropped")
    end(house.worker)
    end(house.node)
    disk.fill()
    house.start_node()
    assert house.http.delete(f"/datasets/{dataset['id']}").status_code == 204
    disk.make_room()
    house.mend()
    assert_goes_on(house)


def test_a_job_under_way_waits_for_room_and_loses_nothing(house: House, disk: SmallDisk) -> None:
    house.hold()
    dataset = submit(house, dataset_body("waiting", train_per_class=6)).answer
    house.wait_until_held()
    disk.fill()
    house.let_go()
    wait_until(lambda: house.http.post("/generate", json=SKETCH).status_code == 507)
    assert job_row(house.db, dataset["job_id"]).status == "running"
    disk.make_room()
    assert wait_for_end(house, dataset["job_id"]) == "succeeded"
    read = house.http.get(f"/datasets/{dataset['id']}").json()
    assert (read["status"], read["num_images"]) == ("ready", 16)


def test_a_job_that_waits_for_room_is_cancelled_and_its_dataset_deleted(house: House, disk: SmallDisk) -> None:
    house.hold()
    dataset = submit(house, dataset_body("waiting", train_per_class=6)).answer
    house.wait_until_held()
    disk.fill()
    house.let_go()
    assert house.http.post(f"/jobs/{dataset['job_id']}/cancel").status_code == 200
    assert wait_for_end(house, dataset["job_id"]) == "cancelled"
    assert house.http.delete(f"/datasets/{dataset['id']}").status_code == 204
    disk.make_room()
    assert_goes_on(house)


def _ballast(folder: Path) -> int:
    return (folder / ".reserve").stat().st_size
