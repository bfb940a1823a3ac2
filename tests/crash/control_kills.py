"""Kills at each step of a cancel, a pause and a resume; run by `make test-crash`, see docs/crash-suite.md."""

import pytest

from testing.kills import Kill
from tests.crash.asking import dataset_body, insist, status, submit, wait_for_end
from tests.crash.conftest import RunUndisturbed
from tests.crash.house import House, end
from tests.crash.invariants import Acknowledged, check_all, check_files, check_folders

BODY = dataset_body()
# What the job engine says of workflows whose ids are given.
PUT_ASIDE = ("UPDATE", "workflow_status", "'CANCELLED'", "'SUCCESS'")
QUEUED_AGAIN = ("UPDATE", "workflow_status", "'ENQUEUED'", "'SUCCESS'", "'chunks'")

# What dies: the node while it takes the wish down, or the worker while it follows it.
CANCELLING = {
    "node, wish not committed": ("node", Kill("commit", ("UPDATE jobs SET cancel_requested",))),
    "node, wish committed": ("node", Kill("committed", ("UPDATE jobs SET cancel_requested",))),
    "worker, not closed": ("worker", Kill("commit", ("UPDATE jobs", "'cancelled'"))),
    "worker, closed": ("worker", Kill("committed", ("UPDATE jobs", "'cancelled'"))),
}
PAUSING = {
    "node, wish not committed": ("node", Kill("commit", ("UPDATE jobs SET pause_requested",))),
    "node, wish committed": ("node", Kill("committed", ("UPDATE jobs SET pause_requested",))),
    "worker, chunks put aside": ("worker", Kill("committed", (*PUT_ASIDE, "-c0'"))),
    "worker, job put aside": ("worker", Kill("committed", (*PUT_ASIDE, "job-"), nth=3)),
    "worker, paused": ("worker", Kill("committed", ("UPDATE jobs", "'paused'"))),
}
WAKING = {
    "node, wish not committed": ("node", Kill("commit", ("UPDATE jobs", "wake_requested"))),
    "node, engine not told": ("node", Kill("committed", ("UPDATE jobs", "wake_requested"))),
    "worker, begun": ("worker", Kill("committed", ("UPDATE jobs", "'running'"))),
    "worker, chunk queued again": ("worker", Kill("committed", QUEUED_AGAIN)),
}


def begin(house: House, victim: str = "", kill: Kill | None = None) -> Acknowledged:
    """Submit the dataset and stop within its first images; `victim` will die of `kill`."""
    house.hold()
    house.start_node(kill if victim == "node" else None)
    house.start_worker(kill if victim == "worker" else None)
    accepted = submit(house, BODY)
    house.wait_until_held()
    return accepted


@pytest.mark.parametrize(("victim", "kill"), CANCELLING.values(), ids=CANCELLING.keys())
def test_a_cancel_is_not_lost_over_a_kill(
    house: House, run_undisturbed: RunUndisturbed, victim: str, kill: Kill
) -> None:
    accepted = begin(house, victim, kill)
    job_id = accepted.answer["job_id"]
    insist(house, f"/jobs/{job_id}/cancel")
    house.let_go()
    house.mend_until(lambda: house.num_deaths == 1 and status(house, job_id) == "cancelled")
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])


@pytest.mark.parametrize(("victim", "kill"), PAUSING.values(), ids=PAUSING.keys())
def test_a_pause_is_not_lost_over_a_kill(
    house: House, run_undisturbed: RunUndisturbed, victim: str, kill: Kill
) -> None:
    accepted = begin(house, victim, kill)
    job_id = accepted.answer["job_id"]
    insist(house, f"/jobs/{job_id}/pause")
    house.let_go()
    house.mend_until(lambda: house.num_deaths == 1 and status(house, job_id) == "paused")
    check_files(house)
    check_folders(house.data_dir)
    insist(house, f"/jobs/{job_id}/resume")
    assert wait_for_end(house, job_id) == "succeeded"
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])


@pytest.mark.parametrize(("victim", "kill"), WAKING.values(), ids=WAKING.keys())
def test_a_resume_is_not_lost_over_a_kill(
    house: House, run_undisturbed: RunUndisturbed, victim: str, kill: Kill
) -> None:
    accepted = begin(house)
    job_id = accepted.answer["job_id"]
    insist(house, f"/jobs/{job_id}/pause")
    house.let_go()
    house.mend_until(lambda: status(house, job_id) == "paused")
    end(getattr(house, victim))
    getattr(house, f"start_{victim}")(kill)
    insist(house, f"/jobs/{job_id}/resume")
    house.mend_until(lambda: house.num_deaths == 1 and status(house, job_id) == "succeeded")
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])
