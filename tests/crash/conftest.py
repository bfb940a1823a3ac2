import shutil
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Protocol

import pytest

from testing.processes import pictures_worker
from tests.crash.asking import submit, wait_for_end
from tests.crash.house import House, end, open_house, start, start_fork_server
from tests.crash.invariants import Undisturbed, final_files

RunUndisturbed = Callable[[dict[str, Any]], Undisturbed]


class StartWorker(Protocol):
    """Starts a worker process for `Pictures`."""

    def __call__(self, chunks_at_once: int = 1) -> ForkServerProcess: ...


@pytest.fixture(scope="session", autouse=True)
def fork_server() -> None:
    """Have processes start quickly."""
    start_fork_server()


@pytest.fixture
def start_worker(database_url: str) -> Iterator[StartWorker]:
    """Starts worker processes for `Pictures` on the test's database; what still runs at the end is killed."""
    workers: list[ForkServerProcess] = []

    def start_one(chunks_at_once: int = 1) -> ForkServerProcess:
        workers.append(start(pictures_worker, database_url, chunks_at_once))
        return workers[-1]

    yield start_one
    for worker in workers:
        end(worker)


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    """A data folder and a database of each kind; nothing runs yet."""
    with open_house(tmp_path, database_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def run_undisturbed(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> RunUndisturbed:
    """Carries a request out without any kill, once a session for each name of a dataset."""
    known: dict[str, Undisturbed] = {}

    def run(body: dict[str, Any]) -> Undisturbed:
        if body["name"] not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            shutil.copyfile(sqlite_template, folder / "foxhound.db")
            with open_house(folder, f"sqlite:///{folder / 'foxhound.db'}") as house:
                known[body["name"]] = _run(house, body)
        return known[body["name"]]

    return run


def _run(house: House, body: dict[str, Any]) -> Undisturbed:
    house.mend()
    dataset = submit(house, body).answer
    wait_for_end(house, dataset["job_id"])
    assert house.http.get(f"/datasets/{dataset['id']}").json()["status"] == "ready"
    files = {path: (house.data_dir / path).read_bytes() for path in final_files(house.data_dir)}
    return Undisturbed(files, house.http.get(f"/datasets/{dataset['id']}/archive.zip").content)
