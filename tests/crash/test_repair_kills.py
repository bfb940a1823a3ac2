"""A worker killed in the middle of a repair: the job goes on and ends right, and nothing is lost."""

import os

import pytest

from testing.kills import Kill
from testing.pictures import job_row
from testing.waiting import wait_until
from tests.crash.asking import dataset_body, submit, wait_for_end
from tests.crash.conftest import RunUndisturbed
from tests.crash.house import House, end, wait_for_death
from tests.crash.invariants import check_all, final_files

BODY = dataset_body()

KILLS = {
    "looking": Kill("statement", ("SELECT images", "LIMIT")),
    "damaged one aside, half a file": Kill("write", (".part",), nth=2),
    "whole, not renamed": Kill("rename", (".part", "datasets/fox-dog"), nth=2),
    "renamed, chunk not recorded": Kill("commit", ("progress_done",)),
    "chunk recorded, job not closed": Kill("commit", ("UPDATE jobs", "'succeeded'")),
}


def spoil_all(house: House) -> dict[str, bytes]:
    """Cut every other file off, remove the rest; return what is left of the damaged ones."""
    damaged = {}
    for number, name in enumerate(sorted(final_files(house.data_dir))):
        path = house.data_dir / name
        if number % 2:
            path.unlink()
        else:
            damaged[name] = path.read_bytes()[:-7]
            os.truncate(path, len(damaged[name]))
    return damaged


def begin_repair(house: House, dataset_id: str) -> str:
    answer = house.http.post(f"/datasets/{dataset_id}/repair")
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def check_set_aside(house: House, damaged: dict[str, bytes]) -> None:
    """Every damaged file is kept, once."""
    (day,) = (house.data_dir / ".lost+found").iterdir()
    kept = {str(path.relative_to(day)): path.read_bytes() for path in day.rglob("*") if path.is_file()}
    assert kept == damaged


@pytest.mark.parametrize("kill", KILLS.values(), ids=KILLS.keys())
def test_a_repair_whose_worker_was_killed_ends_right(house: House, run_undisturbed: RunUndisturbed, kill: Kill) -> None:
    house.mend()
    accepted = submit(house, BODY)
    assert wait_for_end(house, accepted.answer["job_id"]) == "succeeded"
    end(house.worker)
    num_files = len(final_files(house.data_dir))
    damaged = spoil_all(house)
    house.start_worker(kill)
    job_id = begin_repair(house, accepted.answer["id"])
    wait_for_death(house.worker)
    house.mend()
    assert wait_for_end(house, job_id) == "succeeded"
    result = job_row(house.db, job_id).result
    assert result is not None
    assert (result["num_checked"], result["num_restored"]) == (num_files, num_files)
    assert (result["num_redrawn"], result["num_unrestored"]) == (0, 0)
    check_set_aside(house, damaged)
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])


def test_a_repair_is_paused_and_its_whole_node_killed_and_goes_on(
    house: House, run_undisturbed: RunUndisturbed
) -> None:
    house.mend()
    accepted = submit(house, BODY)
    assert wait_for_end(house, accepted.answer["job_id"]) == "succeeded"
    damaged = spoil_all(house)
    house.hold()
    job_id = begin_repair(house, accepted.answer["id"])
    house.wait_until_held()
    assert house.http.post(f"/jobs/{job_id}/pause").is_success
    house.let_go()
    wait_until(lambda: job_row(house.db, job_id).status == "paused")
    house.hold()
    assert house.http.post(f"/jobs/{job_id}/resume").is_success
    house.wait_until_held()
    end(house.worker)
    end(house.node)
    house.let_go()
    house.mend()
    assert wait_for_end(house, job_id) == "succeeded"
    check_set_aside(house, damaged)
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])
