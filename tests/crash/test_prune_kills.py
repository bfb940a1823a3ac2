"""A worker dies amid the daily removal of old images, a node amid a deletion: rows and files agree again afterwards."""

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import httpx
import pytest
from sqlalchemy import select

from app.db.models import PruneRun
from app.storage.layout import DataFolder
from testing import processes
from testing.kills import Kill
from testing.old_images import DAY, add_generations, check_files, generations, image_ids
from testing.waiting import wait_until
from tests.crash.house import House, end, open_house, start, wait_for_death

NUM_OLD, NUM_YOUNG = 70, 3
MOMENTS = {
    "claimed": Kill("committed", ("INSERT INTO prune_runs",)),
    "before the rows": Kill("statement", ("DELETE FROM generations",), nth=2),
    "rows not committed": Kill("commit", ("DELETE FROM generations",), nth=2),
    "rows committed": Kill("committed", ("DELETE FROM generations",), nth=2),
    "amid the files": Kill("remove", ("/images/",), nth=50),
    "files removed": Kill("commit", ("DELETE FROM removed_files",), nth=2),
    "all done, run not closed": Kill("commit", ("UPDATE prune_runs", "finished_at")),
}


@pytest.fixture
def house(database_url: str, tmp_path: Path) -> Iterator[House]:
    """A data folder with old and young generations, and a database; nothing runs yet."""
    with open_house(tmp_path, database_url, keep_images_days=1) as opened:
        folder = DataFolder(opened.data_dir)
        add_generations(opened.db, folder, [2 * DAY] * NUM_OLD + [timedelta(0)] * NUM_YOUNG, num_bytes=100)
        for path in (opened.data_dir / "images").rglob("*.png"):
            os.utime(path, (0, 0))  # a sweep would take those without a record
        yield opened


def last_run(house: House) -> PruneRun | None:
    with house.db.snapshot() as session:
        return session.scalars(select(PruneRun)).one_or_none()


def wait_for_run(house: House) -> PruneRun:
    """Wait until the day's run is finished, and return it."""

    def finished() -> PruneRun | None:
        run = last_run(house)
        return run if run is not None and run.finished_at is not None else None

    wait_until(finished)
    run = finished()
    assert run is not None
    return run


def check(house: House) -> None:
    """Expect that only the young ones are left, that the run counts all others, and that rows and files agree."""
    run = wait_for_run(house)
    assert (run.num_generations, run.num_images, run.num_bytes) == (NUM_OLD, NUM_OLD, 100 * NUM_OLD)
    assert len(generations(house.db)) == NUM_YOUNG
    check_files(house.db, DataFolder(house.data_dir))


@pytest.mark.parametrize("kill", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_worker_killed_amid_a_prune_is_made_up_for(house: House, kill: Kill) -> None:
    house.start_worker(kill)
    wait_for_death(house.worker)
    house.start_node()  # its recovery, and no worker yet
    check_files(house.db, DataFolder(house.data_dir))
    for generation_id in generations(house.db):
        (image_id,) = image_ids(house.db, generation_id)
        assert house.http.get(f"/images/{image_id}").status_code == 200
    house.start_worker()
    check(house)


def test_two_workers_do_the_days_run_once(house: House) -> None:
    second = start(processes.worker, house.settings, None)
    house.start_worker()
    try:
        check(house)
    finally:
        end(second)


@pytest.mark.parametrize("moment", ["commit", "committed"])
def test_a_deletion_whose_node_was_killed_happened_or_did_not(
    house: House, moment: Literal["commit", "committed"]
) -> None:
    house.start_node(Kill(moment, ("DELETE FROM generations",)))
    generation_id = min(generations(house.db))
    with pytest.raises(httpx.TransportError):
        house.http.delete(f"/generations/{generation_id}")
    wait_for_death(house.node)
    house.start_node()
    assert house.http.get(f"/generations/{generation_id}").status_code == (200 if moment == "commit" else 404)
    check_files(house.db, DataFolder(house.data_dir))
