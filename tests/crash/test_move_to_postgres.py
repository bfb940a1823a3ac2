"""The way to Postgres as docs/storage.md tells it: `foxhound migrate --from --to`, and every picture is still there."""

import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Table, select, update
from typer.testing import CliRunner, Result

from app.cli.main import app
from app.db.base import Base, utc_now
from app.db.models import Job, Store, Worker
from app.db.session import Database
from app.node.lock import lock_data_dir
from app.services.store.record_copy import CopyRefused, copy_records
from testing.uploads import create_empty, picture, upload
from tests.crash.asking import dataset_body, insist, status, submit, wait_for_end
from tests.crash.house import House, end, open_house
from tests.crash.invariants import check_files, final_files


@pytest.fixture
def house(tmp_path: Path, sqlite_template: Path) -> Iterator[House]:
    """A house on SQLite."""
    shutil.copyfile(sqlite_template, tmp_path / "foxhound.db")
    with open_house(tmp_path, f"sqlite:///{tmp_path / 'foxhound.db'}") as opened:
        yield opened


def fill(house: House) -> None:
    """Make a dataset, a model, uploads and an image; leave a job half done, with shots, and another one at rest."""
    house.mend()
    made = submit(house, dataset_body("made")).answer
    assert wait_for_end(house, made["job_id"]) == "succeeded"
    model = house.http.post("/train-jobs", json={"dataset_id": made["id"], "epochs": 2}).json()
    assert wait_for_end(house, model["id"]) == "succeeded"
    uploaded = upload(house.http, create_empty(house.http, "uploads")["id"], [picture(1), picture(2)]).json()
    assert house.http.post("/generate", json={"prompt": "a fox", "seed": 1, "num_inference_steps": 1}).is_success
    house.hold()
    half = dataset_body("half")
    half["classes"][0]["from_images"] = [file["image_id"] for file in uploaded["files"]]
    submit(house, {**half, "generation": {**half["generation"], "strength": 1.0}})
    house.wait_until_held()
    end(house.worker)
    resting = submit(house, dataset_body("resting")).answer["job_id"]
    insist(house, f"/jobs/{resting}/pause")
    assert status(house, resting) == "paused"
    end(house.node)
    house.let_go()


def migrate(house: House, monkeypatch: pytest.MonkeyPatch, target: str) -> Result:
    monkeypatch.setenv("FOXHOUND_DATA_DIR", str(house.data_dir))
    return CliRunner().invoke(app, ["migrate", "--from", house.url, "--to", target])


def silence_workers(house: House) -> None:
    """Let the worker that was killed have been silent for an hour."""
    with house.db.transaction() as session:
        session.execute(update(Worker).values(beat_at=utc_now() - timedelta(hours=1)))


def rows(db: Database, table: Table) -> list[dict[str, object]]:
    with db.snapshot() as session:
        return [dict(row) for row in session.execute(select(table).order_by(*table.primary_key)).mappings()]


def test_everything_goes_along_and_what_was_not_done_is_done_there(
    house: House, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(house)
    before = {path: (house.data_dir / path).read_bytes() for path in final_files(house.data_dir)}
    refused = migrate(house, monkeypatch, postgres_url)
    assert (refused.exit_code, "A worker runs on the source" in refused.output) == (78, True)
    silence_workers(house)
    with lock_data_dir(house.data_dir):
        refused = migrate(house, monkeypatch, postgres_url)
    assert (refused.exit_code, "in use by another Foxhound node" in refused.output) == (78, True)

    done = migrate(house, monkeypatch, postgres_url)
    assert done.exit_code == 0, done.output
    assert "datasets: 4 of 4" in done.output
    assert "dataset_shots: 2 of 2" in done.output
    assert "2 jobs that had not ended are restarted" in done.output
    refused = migrate(house, monkeypatch, postgres_url)
    assert (refused.exit_code, "has records already" in refused.output) == (78, True)

    moved = Database(postgres_url)
    for table in Base.metadata.sorted_tables:
        if table not in (Worker.__table__, Job.__table__):
            assert rows(moved, table) == rows(house.db, table), table.name
    moved.close()
    with open_house(tmp_path, postgres_url) as new:
        new.mend()
        jobs = {job["id"]: job for job in new.http.get("/jobs", params={"limit": 100}).json()["items"]}
        (resting,) = (job_id for job_id, job in jobs.items() if job["status"] == "paused")
        insist(new, f"/jobs/{resting}/resume")
        assert {wait_for_end(new, job_id) for job_id in jobs} == {"succeeded"}
        datasets = new.http.get("/datasets", params={"limit": 100}).json()["items"]
        assert {entry["name"]: entry["status"] for entry in datasets} == dict.fromkeys(
            ("made", "half", "resting", "uploads"), "ready"
        )
        images = new.http.get("/images", params={"limit": 100}).json()["items"]
        assert all(new.http.get(f"/images/{image['id']}").is_success for image in images)
        check_files(new)
    after = {path: (house.data_dir / path).read_bytes() for path in final_files(house.data_dir)}
    assert after.items() >= before.items()


def test_a_copy_that_was_interrupted_leaves_nothing_and_is_done_again(house: House, postgres_url: str) -> None:
    house.mend()
    upload(house.http, create_empty(house.http, "uploads")["id"], [picture(1), picture(2)])
    end(house.node)
    end(house.worker)
    silence_workers(house)

    class Interrupted(Exception):
        pass

    def interrupt(line: str) -> None:
        if line.startswith("images"):
            raise Interrupted

    with pytest.raises(Interrupted):
        copy_records(house.url, postgres_url, on_progress=interrupt)
    new = Database(postgres_url)
    assert all(rows(new, table) == [] for table in Base.metadata.sorted_tables)
    assert copy_records(house.url, postgres_url, on_progress=lambda _: None).num_active == 0
    store = Base.metadata.tables[Store.__tablename__]
    assert rows(new, store) == rows(house.db, store) != []
    with pytest.raises(CopyRefused):
        copy_records(house.url, postgres_url, on_progress=lambda _: None)
    new.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--from", "sqlite:///a.db"], "Give both"),
        (["--to", "sqlite:///a.db"], "Give both"),
        (["--from", "sqlite:///a.db", "--to", "sqlite:///a.db"], "the same database"),
        (["--from", "mysql://secret@host/a", "--to", "sqlite:///a.db"], "cannot be read"),
        (["--from", "sqlite:///absent.db", "--to", "sqlite:///a.db"], "not up to date"),
    ],
)
def test_what_cannot_be_copied_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOXHOUND_DATA_DIR", str(tmp_path / "data"))
    refused = CliRunner().invoke(app, ["migrate", *arguments])
    assert refused.exit_code == 78
    assert words in refused.output
    assert "secret" not in refused.output
    assert list(tmp_path.iterdir()) == []
