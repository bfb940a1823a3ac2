"""What a process that was killed left unrecorded is removed; see docs/crash-suite.md."""

import httpx
import pytest

from testing.kills import Kill
from testing.uploads import picture, upload
from tests.crash.asking import dataset_body, insist, status, submit, wait_for_end
from tests.crash.conftest import RunUndisturbed
from tests.crash.house import House, end, wait_for_death
from tests.crash.invariants import check_all, check_files, final_files

BODY = dataset_body()
# One chunk: whoever dies dies over that one.
SMALL_BODY = dataset_body("small-fox-dog", train_per_class=1, test_per_class=1)
# Files of a chunk are in place, and their rows are not: what nobody records has to go.
UNRECORDED = Kill("commit", ("INSERT INTO images",), nth=2)


@pytest.mark.parametrize("wishes", [["cancel"], ["pause", "cancel"]], ids=["cancelled", "paused and cancelled"])
def test_what_a_killed_worker_left_unrecorded_goes_with_the_cancel(
    house: House, run_undisturbed: RunUndisturbed, wishes: list[str]
) -> None:
    house.start_node()
    house.start_worker(UNRECORDED)
    accepted = submit(house, BODY)
    wait_for_death(house.worker)
    job_id = accepted.answer["job_id"]
    for wish in wishes:
        insist(house, f"/jobs/{job_id}/{wish}")
        house.mend_until(lambda: status(house, job_id) in ("paused", "cancelled"))
        check_files(house)
    assert status(house, job_id) == "cancelled"
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])


def test_a_job_that_was_given_up_leaves_nothing_unrecorded_and_its_retry_the_same_files(
    house: House, run_undisturbed: RunUndisturbed
) -> None:
    house.start_node()
    accepted = submit(house, SMALL_BODY)
    for _ in range(3):
        house.start_worker(Kill("commit", ("INSERT INTO images",)))
        wait_for_death(house.worker)
    house.mend()
    assert wait_for_end(house, accepted.answer["job_id"]) == "failed"
    check_all(house, {SMALL_BODY["name"]: run_undisturbed(SMALL_BODY)}, [accepted])
    assert final_files(house.data_dir) == []
    retried = house.http.post(f"/jobs/{accepted.answer['job_id']}/retry").json()
    assert wait_for_end(house, retried["id"]) == "succeeded"
    check_all(house, {SMALL_BODY["name"]: run_undisturbed(SMALL_BODY)}, [accepted])


def test_an_uploaded_file_whose_row_was_not_committed_is_gone_after_the_restart(
    house: House, run_undisturbed: RunUndisturbed
) -> None:
    house.mend()
    accepted = submit(house, BODY)
    wait_for_end(house, accepted.answer["job_id"])
    end(house.node)
    house.start_node(Kill("commit", ("INSERT INTO images",)))
    with pytest.raises(httpx.TransportError):
        upload(house.http, accepted.answer["id"], [picture(1)], class_name="fox")
    wait_for_death(house.node)
    house.mend()
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])
