"""K1 to K14 of docs/crash-suite.md: a process of a node kills itself there, and is started again."""

import re

import httpx
import pytest

from testing.kills import Kill
from tests.crash.asking import dataset_body, status, submit, wait_for_end
from tests.crash.conftest import RunUndisturbed
from tests.crash.house import House, end, wait_for_death
from tests.crash.invariants import check_all, check_folders, final_files

BODY = dataset_body()
# Its archive is sent in several messages.
LARGE_BODY = dataset_body("large-fox-dog", side=192)

IN_WORKER = {
    "K4 claimed": Kill("committed", ("UPDATE", "workflow_status", "PENDING")),
    "K4 running": Kill("committed", ("UPDATE jobs", "'running'")),
    "K6 half a file": Kill("write", (".part",), nth=6),
    "K7 whole, not renamed": Kill("rename", (".part", "datasets/fox-dog"), nth=3),
    "K8 renamed, no row": Kill("commit", ("INSERT INTO images",), nth=2),
    "K9 rows, chunk not closed": Kill("committed", ("INSERT INTO images",), nth=2),
    "K11 all done, job not closed": Kill("commit", ("UPDATE jobs", "'succeeded'")),
    "K12 job closed, workflow not": Kill("committed", ("UPDATE jobs", "'succeeded'")),
}


@pytest.mark.parametrize("kill", IN_WORKER.values(), ids=IN_WORKER.keys())
def test_a_worker_killed_at_any_point_is_made_up_for(house: House, run_undisturbed: RunUndisturbed, kill: Kill) -> None:
    house.start_node()
    house.start_worker(kill)
    accepted = submit(house, BODY)
    wait_for_death(house.worker)
    check_folders(house.data_dir)
    house.mend()
    assert wait_for_end(house, accepted.answer["job_id"]) == "succeeded"
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])


def receive(house: House, path: str) -> tuple[bytes, str | None]:
    """Read an answer that breaks off; return what came of it, and its ETag."""
    parts: list[bytes] = []
    with house.http.stream("GET", path) as answer:
        with pytest.raises(httpx.TransportError):
            parts.extend(answer.iter_raw())
        return b"".join(parts), answer.headers.get("etag")


AT_SUBMISSION = {
    "K1 request parsed": Kill("statement", ("INSERT INTO idempotency_keys",)),
    "K2 inserted": Kill("commit", ("INSERT INTO jobs",)),
    "K3 committed": Kill("committed", ("INSERT INTO jobs",)),
    "K3 202 not sent": Kill("send", ("POST /datasets", "http.response.start", "202")),
}


@pytest.mark.parametrize("kill", AT_SUBMISSION.values(), ids=AT_SUBMISSION.keys())
def test_a_request_whose_node_was_killed_is_sent_again_and_done_once(
    house: House, run_undisturbed: RunUndisturbed, kill: Kill
) -> None:
    house.start_worker()
    house.start_node(kill)
    with pytest.raises(httpx.TransportError):
        submit(house, BODY)
    wait_for_death(house.node)
    house.mend()
    accepted = submit(house, BODY)
    assert wait_for_end(house, accepted.answer["job_id"]) == "succeeded"
    assert len(house.http.get("/jobs").json()["items"]) == 1
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])


@pytest.mark.parametrize("victim", ["node", "worker"])
def test_who_is_killed_amid_denoising_costs_at_most_a_chunk(
    house: House, run_undisturbed: RunUndisturbed, victim: str
) -> None:
    house.hold()
    house.mend()
    accepted = submit(house, BODY)
    house.wait_until_held()
    end(getattr(house, victim))
    check_folders(house.data_dir)
    house.let_go()
    house.mend()
    assert wait_for_end(house, accepted.answer["job_id"]) == "succeeded"
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])


def test_the_last_event_that_a_killed_node_did_not_send_comes_after_its_restart(
    house: House, run_undisturbed: RunUndisturbed
) -> None:
    house.start_worker()
    house.start_node(Kill("send", ("/events", '"status":"succeeded"')))
    accepted = submit(house, BODY)
    path = f"/jobs/{accepted.answer['job_id']}/events"
    received, _ = receive(house, path)
    seen = re.findall(r"^id: (\d+)", received.decode(), re.MULTILINE)[-1]
    wait_for_death(house.node)
    assert status(house, accepted.answer["job_id"]) == "succeeded"
    house.mend()
    events = house.http.get(path, headers={"Last-Event-ID": seen}).text
    assert events.count("event: status") == 1
    assert '"status":"succeeded"' in events
    check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])


UNDELETED = (
    Kill("rename", ("/datasets/fox-dog",)),
    Kill("rename", ("/rejected/fox-dog",)),  # between the two folders
    Kill("commit", ("DELETE FROM datasets",)),
)
DELETED = (Kill("committed", ("DELETE FROM datasets",)), Kill("remove", (".png",), nth=3))


def delete_and_die(house: House, path: str, kill: Kill) -> int:
    """Let a new node die while it deletes a dataset, mend, and return whether the dataset is there."""
    end(house.node)
    house.start_node(kill)
    with pytest.raises(httpx.TransportError):
        house.http.delete(path)
    wait_for_death(house.node)
    check_folders(house.data_dir)
    house.mend()
    return house.http.get(path).status_code


def test_a_dataset_whose_deletion_was_killed_is_there_or_gone(house: House, run_undisturbed: RunUndisturbed) -> None:
    house.mend()
    for number, deleted in enumerate(DELETED):  # after the first the name is free, and its place empty
        accepted = submit(house, BODY, key=f"key-{number}")
        assert wait_for_end(house, accepted.answer["job_id"]) == "succeeded"
        path = f"/datasets/{accepted.answer['id']}"
        for undeleted in UNDELETED if number == 0 else ():
            assert delete_and_die(house, path, undeleted) == 200
            check_all(house, {BODY["name"]: run_undisturbed(BODY)}, [accepted])
        assert delete_and_die(house, path, deleted) == 404
        assert final_files(house.data_dir) == []
        check_all(house, {}, [accepted])


def test_a_download_whose_node_was_killed_goes_on_where_it_was(house: House, run_undisturbed: RunUndisturbed) -> None:
    house.mend()
    accepted = submit(house, LARGE_BODY)
    wait_for_end(house, accepted.answer["job_id"])
    end(house.node)
    house.start_node(Kill("send", ("archive.zip", "http.response.body"), nth=2))
    path = f"/datasets/{accepted.answer['id']}/archive.zip"
    received, etag = receive(house, path)
    wait_for_death(house.node)
    whole = run_undisturbed(LARGE_BODY).archive
    assert 0 < len(received) < len(whole)
    house.mend()
    goes_on = {"Range": f"bytes={len(received)}-", "If-Range": etag or ""}
    rest = house.http.get(path, headers=goes_on)
    assert rest.status_code == 206
    assert received + rest.content == whole
    check_all(house, {LARGE_BODY["name"]: run_undisturbed(LARGE_BODY)}, [accepted])
