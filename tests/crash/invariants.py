"""What holds after every kill, I1 to I7 of docs/crash-suite.md: on the disk at once, in all when work has ended."""

import io
import json
import zipfile
from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import PIL.Image
from dbos import DBOSClient
from sqlalchemy import select, text
from torchvision.datasets import ImageFolder

from app.db.migrations import check as check_tables
from app.db.models import Dataset, Image, Job
from app.jobs import durable
from app.jobs.attribute_crash import MAX_ATTEMPTS
from app.jobs.migrations import check_job_engine
from app.jobs.record import ENDED
from testing.waiting import wait_until
from tests.crash.house import House


@dataclass(frozen=True)
class Undisturbed:
    """What a request gives when nobody is killed: files by their path in the data folder, and the archive."""

    files: dict[str, bytes]
    archive: bytes


@dataclass(frozen=True)
class Acknowledged:
    """A request that was answered with 202: under which key, and what the answer was."""

    key: str
    body: dict[str, Any]
    answer: dict[str, Any]


def check_folders(data_dir: Path) -> None:
    """I3: each split is whole for ImageFolder at this moment; no partial image, no strange file, no empty folder."""
    for dataset in (data_dir / "datasets").glob("*"):
        splits = list(dataset.iterdir())
        assert splits, "a dataset's folder is empty"
        for split in splits:
            loaded = ImageFolder(str(split))  # raises for a class without images
            for path, _ in loaded.samples:
                with PIL.Image.open(path) as image:
                    image.load()
            assert {str(path) for path in split.rglob("*") if path.is_file()} == {path for path, _ in loaded.samples}


def check_all(house: House, undisturbed: dict[str, Undisturbed], acknowledged: list[Acknowledged]) -> None:
    """Every invariant, once all work has ended; a deleted dataset is none of the acknowledged ones."""
    check_work_has_ended(house)
    check_database(house)
    check_keys(house, acknowledged)
    check_files(house)
    check_folders(house.data_dir)
    for dataset in house.http.get("/datasets", params={"limit": 100}).json()["items"]:
        check_dataset(house, dataset, undisturbed[dataset["name"]])


def check_work_has_ended(house: House) -> None:
    """I6: attempts are bounded, and nothing runs or waits for ever, neither job nor workflow."""
    client = durable.JobEngineClient(house.url)
    try:
        wait_until(lambda: not _active_workflows(client))
    finally:
        client.destroy()
    with house.db.snapshot() as session:
        jobs = session.scalars(select(Job)).all()
    assert {job.status for job in jobs} <= set(ENDED)
    assert all(job.attempts <= MAX_ATTEMPTS for job in jobs)


def check_database(house: House) -> None:
    """I7: the database is intact, and its tables are this version's."""
    check_tables(house.url)
    check_job_engine(house.url)
    with house.db.snapshot() as session:
        if house.url.startswith("sqlite"):
            assert session.scalar(text("PRAGMA integrity_check")) == "ok"


def check_keys(house: House, acknowledged: list[Acknowledged]) -> None:
    """I1: each acknowledged job exists, and its request sent again gets the same answer."""
    for entry in acknowledged:
        assert house.http.get(f"/jobs/{entry.answer['job_id']}").is_success
        again = house.http.post("/datasets", json=entry.body, headers={"Idempotency-Key": entry.key})
        assert (again.status_code, again.json()["id"]) == (202, entry.answer["id"])
        assert again.headers["idempotency-replayed"] == "true"


def check_files(house: House) -> None:
    """I2: a row for each final file and a file for each row, with the bytes that the row tells of."""
    with house.db.snapshot() as session:
        rows = session.execute(select(Image.path, Image.sha256, Image.num_bytes)).all()
    assert {row.path for row in rows} == set(final_files(house.data_dir))
    for row in rows:
        content = (house.data_dir / row.path).read_bytes()
        assert (sha256(content).hexdigest(), len(content)) == (row.sha256, row.num_bytes)


def check_dataset(house: House, dataset: dict[str, Any], undisturbed: Undisturbed) -> None:
    """I4 and I5: counts, rows and metadata lines agree; nothing is twice; bytes are those of the undisturbed run."""
    with house.db.snapshot() as session:
        of_dataset = select(Image).where(Image.dataset_id == dataset["id"], Image.decision == "kept")
        rows = session.scalars(of_dataset).all()
        classes = [entry["name"] for entry in session.get_one(Dataset, dataset["id"]).classes]
    told = {
        (split, entry["name"]): entry[f"num_{split}"] for entry in dataset["classes"] for split in ("train", "test")
    }
    recorded = Counter((row.split, classes[row.class_index]) for row in rows if row.class_index is not None)
    assert {place: number for place, number in told.items() if number} == recorded
    assert len({(row.split, row.class_index, row.position) for row in rows}) == len(rows)
    archive = house.http.get(f"/datasets/{dataset['id']}/archive.zip")
    assert archive.is_success
    assert metadata_counts(archive.content) == recorded
    here = {path: (house.data_dir / path).read_bytes() for path in final_files(house.data_dir, dataset["name"])}
    if dataset["status"] == "ready":
        assert here == undisturbed.files
        assert archive.content == undisturbed.archive
    else:
        assert here.items() <= undisturbed.files.items()


def final_files(data_dir: Path, name: str = "*") -> list[str]:
    """Return the paths of the files of datasets, kept and rejected ones, and of generations."""
    files = [*data_dir.glob(f"datasets/{name}/*/**/*"), *data_dir.glob(f"rejected/{name}/*/**/*")]
    if name == "*":
        files += data_dir.glob("images/**/*")
    return [str(path.relative_to(data_dir)) for path in files if path.is_file()]


def metadata_counts(archive: bytes) -> Counter[tuple[str, str]]:
    """Count the metadata lines of an archive by split and class."""
    counts: Counter[tuple[str, str]] = Counter()
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        assert zipped.testzip() is None
        for split in ("train", "test"):
            if f"{split}/metadata.jsonl" in zipped.namelist():
                lines = zipped.read(f"{split}/metadata.jsonl").splitlines()
                counts.update((split, json.loads(line)["label"]) for line in lines)
    return counts


def _active_workflows(client: DBOSClient) -> list[Any]:
    return client.list_workflows(status=durable.ACTIVE, load_input=False, load_output=False)
