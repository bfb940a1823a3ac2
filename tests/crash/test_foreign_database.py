"""A full data folder meets a database that does not know its files: a refusal, or files that move. None is gone."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url
from typer.testing import CliRunner

from app.cli.main import app as command_line
from app.db.session import Database, sqlite_path
from app.services.store.identity import assign_store_id
from app.services.store.recovery import MAX_SWEPT
from app.storage.layout import DataFolder
from testing.databases import _execute, _migrate
from testing.uploads import create_empty, picture, upload
from testing.waiting import wait_until
from tests.crash.asking import dataset_body, submit, wait_for_end
from tests.crash.house import House, end, open_house

ROOT = Path(__file__).parents[2]
KINDS = ("images", "datasets", "rejected", "models")
EXIT_CONFIG = 78

Copy = Callable[[str], str]


@pytest.fixture
def copy(database_url: str) -> Iterator[Copy]:
    """Copies the test's database, with which nothing may work meanwhile, and gives the copy's URL by its name."""
    made: list[str] = []

    def make(name: str) -> str:
        path, url = sqlite_path(database_url), make_url(database_url)
        if path is not None:
            path.with_name(f"{name}.db").write_bytes(path.read_bytes())
            return f"sqlite:///{path.with_name(f'{name}.db')}"
        _execute(server(database_url), f"CREATE DATABASE {url.database}_{name} TEMPLATE {url.database}")
        made.append(f"{url.database}_{name}")
        return url.set(database=made[-1]).render_as_string(hide_password=False)

    yield make
    for name in made:
        _execute(server(database_url), f"DROP DATABASE {name} WITH (FORCE)")


def server(url: str) -> str:
    return make_url(url).set(database="postgres").render_as_string(hide_password=False)


def stop(house: House) -> None:
    for process in (house.worker, house.node):
        end(process)
    house.db.close()


def fill(house: House, name: str, num_uploads: int) -> None:
    """Make a dataset with rejected images, a model of it, a dataset of uploads, and an image of its own."""
    dataset = submit(house, dataset_body(name)).answer
    assert wait_for_end(house, dataset["job_id"]) == "succeeded"
    model = house.http.post("/train-jobs", json={"dataset_id": dataset["id"], "epochs": 1}).json()
    assert wait_for_end(house, model["id"]) == "succeeded"
    uploads = create_empty(house.http, f"{name}-uploads")["id"]
    for k in range(num_uploads):
        assert upload(house.http, uploads, [picture(k)]).json()["num_accepted"] == 1
    assert house.http.post("/generate", json={"prompt": "a fox", "seed": 1, "num_inference_steps": 1}).is_success


def files_of(data_dir: Path) -> dict[str, bytes]:
    found = [path for kind in KINDS for path in (data_dir / kind).rglob("*") if path.is_file()]
    return {str(path.relative_to(data_dir)): path.read_bytes() for path in found}


def age(data_dir: Path) -> None:
    """Let everything in the folder be two hours old."""
    for path in data_dir.rglob("*"):
        if not path.is_socket():
            os.utime(path, (time.time() - 7_200,) * 2)


def assert_none_is_gone(data_dir: Path, before: dict[str, bytes]) -> None:
    """Every file is where it was, or under `.lost+found` at the same path, with the bytes that it had."""
    for path, content in before.items():
        places = [data_dir / path, *data_dir.glob(f".lost+found/*/{path}*")]
        assert content in [place.read_bytes() for place in places if place.exists()], path


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[House]:
    """A house that has made one of everything, and has stopped; its files are old, and no test may change it."""
    folder = tmp_path_factory.mktemp("full")
    shutil.copyfile(sqlite_template, folder / "foxhound.db")
    with open_house(folder, f"sqlite:///{folder / 'foxhound.db'}") as house:
        house.mend()
        fill(house, "first", 3)
        stop(house)
        age(house.data_dir)
        assert {path.split("/")[0] for path in files_of(house.data_dir)} == set(KINDS)
        yield house


def environment(house: House, url: str) -> dict[str, str]:
    """Return the settings of a process on the house's data folder."""
    return {"FOXHOUND_DATA_DIR": str(house.data_dir), "FOXHOUND_DATABASE_URL": url, "FOXHOUND_PORT": "0"}


def run_command(house: House, url: str, name: str) -> tuple[int, str]:
    """Run `foxhound` as a person does; return its exit status and what it told."""
    if name in ("migrate", "serve"):
        told = CliRunner().invoke(command_line, [name], env=environment(house, url))
        return told.exit_code, told.output
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FOXHOUND_", "DATABASE_URL"))}
    env = {**kept, "PYTHONPATH": str(ROOT), **environment(house, url)}
    run = [sys.executable, "-m", "app.cli.main", name]
    done = subprocess.run(run, env=env, cwd=house.data_dir.parent, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


def assert_refused(house: House, url: str, *commands: str) -> None:
    before = files_of(house.data_dir)
    for name in commands:
        status, told = run_command(house, url, name)
        assert status == EXIT_CONFIG, told
        for word in ("FOXHOUND_DATA_DIR", "FOXHOUND_DATABASE_URL", "foxhound storage adopt"):
            assert word in told
        assert told.count("\n") == 1
        assert files_of(house.data_dir) == before
        assert not (house.data_dir / ".lost+found").exists()


def test_a_database_of_a_mistyped_name_is_refused_and_does_not_come_to_be(full: House, tmp_path: Path) -> None:
    typo = tmp_path / "foxhuond.db"
    assert_refused(full, f"sqlite:///{typo}", "migrate")
    assert not typo.exists()


def test_an_empty_database_is_refused_by_every_process(full: House, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    _migrate(url)  # as an older release did
    assert_refused(full, url, "migrate", "serve", "api", "worker")


def test_an_empty_postgres_is_refused_with_the_way_to_it(full: House, postgres_url: str) -> None:
    assert_refused(full, postgres_url, "migrate", "serve")
    assert "foxhound migrate --from" in run_command(full, postgres_url, "migrate")[1]


def test_the_database_of_another_node_is_refused(full: House, tmp_path: Path, postgres_url: str) -> None:
    for name, url in (("lite", f"sqlite:///{tmp_path / 'another.db'}"), ("postgres", postgres_url)):
        _migrate(url)
        db = Database(url)
        assign_store_id(db, DataFolder(tmp_path / name))
        db.close()
        assert_refused(full, url, "migrate", "serve")


def test_a_folder_without_an_id_is_refused_to_an_empty_database_too(full: House, tmp_path: Path) -> None:
    url, kept = f"sqlite:///{tmp_path / 'empty.db'}", full.data_dir / "store_id"
    _migrate(url)
    kept.rename(tmp_path / "store_id")
    try:
        assert_refused(full, url, "migrate", "serve")
    finally:
        (tmp_path / "store_id").rename(kept)


def test_who_shares_a_run_folder_is_refused_and_the_node_goes_on(tmp_path: Path, sqlite_template: Path) -> None:
    shutil.copyfile(sqlite_template, tmp_path / "foxhound.db")
    with open_house(tmp_path, f"sqlite:///{tmp_path / 'foxhound.db'}") as house:
        house.mend()
        for name in ("api", "serve"):
            status, told = run_command(house, house.url, name)
            assert status == EXIT_CONFIG, told
            assert "FOXHOUND_RUN_DIR" in told
        accepted = submit(house, dataset_body("after"))
        assert wait_for_end(house, accepted.answer["job_id"]) == "succeeded"
        assert house.http.get("/readyz").is_success


@pytest.mark.parametrize("num_uploads", [2, MAX_SWEPT])
def test_an_older_copy_of_its_own_database_loses_nothing(
    house: House, copy: Copy, tmp_path: Path, num_uploads: int
) -> None:
    house.mend()
    fill(house, "first", 1)
    stop(house)
    older_url = copy("older")
    house.mend()
    fill(house, "second", num_uploads)
    (uploads,) = (entry for entry in house.http.get("/datasets").json()["items"] if entry["name"] == "first-uploads")
    assert upload(house.http, uploads["id"], [picture(100)]).json()["num_accepted"] == 1
    stop(house)
    age(house.data_dir)
    before = files_of(house.data_dir)
    with open_house(tmp_path, older_url) as older:
        older.mend()
        lost_found = house.data_dir / ".lost+found"
        assert lost_found.exists() == (num_uploads < MAX_SWEPT)
        assert_none_is_gone(house.data_dir, before)
        # Whoever goes on with the older copy uses the same names again.
        fill(older, "second", 2)
        assert upload(older.http, uploads["id"], [picture(101)]).json()["num_accepted"] == 1
        assert older.http.delete(f"/datasets/{uploads['id']}").is_success
        wait_until(lambda: not (house.data_dir / "datasets" / "first-uploads").exists())
        stop(older)
        recorded = {path for path in before if path.startswith(("datasets/first-uploads",))}
        newer = {path: before[path] for path in before if path not in recorded or path.endswith("000001.png")}
        assert_none_is_gone(house.data_dir, newer)
