"""Pause, resume, retry, priority and events of jobs over HTTP; no worker runs here."""

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from app.db.base import utc_now
from app.db.models import Job
from app.db.session import Database
from app.jobs import record
from app.services.jobs.service import job_read
from testing.fake_models import FakeModels
from testing.node import Node, make_settings, serve

CLASSES = [{"name": name, "prompts": [name]} for name in ("fox", "dog")]
DATASET = {"name": "fox-dog", "classes": CLASSES, "train_per_class": 1, "test_per_class": 0}


@pytest.fixture
def db(node: Node) -> Iterator[Database]:
    db = Database(node.settings.resolved_database_url)
    yield db
    db.close()


def generate(http: httpx.Client, path: str = "/generate") -> dict:
    body = {"prompt": "a fox", "num_images_per_prompt": 4, "num_inference_steps": 1}
    answer = http.post(path, json=body, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return answer.json()


def change(db: Database, job_id: str, *, done: int = 0, ends: bool = False) -> None:
    """Do with a job's row what a worker would."""
    with db.transaction() as session:
        record.begin(session, job_id)
        if done:
            record.advance(session, job_id, done)
        if ends:
            record.finish(session, job_id, lambda *_: None, completed=True, result={})


class Stream:
    """The events of a job as a client receives them."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def next(self) -> dict | None:
        """Return the next event; None when the stream has ended."""
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line and fields:
                return {**fields, "data": json.loads(fields["data"])}
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
        return None


def test_pause_and_resume_are_told_and_repeatable(http: httpx.Client) -> None:
    job = generate(http)
    for action, status in (("pause", "paused"), ("resume", "queued"), ("pause", "paused"), ("cancel", "cancelled")):
        first, second = (http.post(f"/jobs/{job['id']}/{action}").json() for _ in range(2))
        assert first["status"] == status
        assert second == first
    for action in ("pause", "resume"):
        assert http.post(f"/jobs/{job['id']}/{action}").json()["status"] == "cancelled"
        assert http.post(f"/jobs/nope/{action}").status_code == 404


def test_a_paused_jobs_dataset_is_in_use(http: httpx.Client) -> None:
    created = http.post("/datasets", json=DATASET).json()
    assert http.post(f"/jobs/{created['job_id']}/pause").json()["status"] == "paused"
    assert http.delete(f"/datasets/{created['id']}").status_code == 409
    assert [job["id"] for job in http.get("/jobs?status=paused").json()["items"]] == [created["job_id"]]


def test_a_priority_is_bounded_and_told(http: httpx.Client) -> None:
    assert generate(http, "/generate?priority=-100")["priority"] == -100
    assert generate(http)["priority"] == 0
    for priority in (-101, 101, "high"):
        assert http.post(f"/datasets?priority={priority}", json=DATASET).status_code == 422


def test_a_cancelled_dataset_job_is_retried_and_owns_the_dataset(http: httpx.Client) -> None:
    created = http.post("/datasets", json=DATASET).json()
    job_id = created["job_id"]
    assert http.post(f"/jobs/{job_id}/retry").json()["code"] == "job_not_failed"
    http.post(f"/jobs/{job_id}/cancel")
    answer = http.post(f"/jobs/{job_id}/retry?priority=9", headers={"Idempotency-Key": "again"})
    retried = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"/jobs/{retried['id']}")
    assert (retried["retry_of"], retried["status"], retried["priority"]) == (job_id, "queued", 9)
    dataset = http.get(f"/datasets/{created['id']}").json()
    assert (dataset["status"], dataset["job_id"]) == ("queued", retried["id"])
    assert http.post(f"/jobs/{job_id}/retry").json()["code"] == "dataset_in_use"
    replay = http.post(f"/jobs/{job_id}/retry?priority=9", headers={"Idempotency-Key": "again"})
    assert replay.json() == retried
    assert http.get(f"/jobs/{job_id}").json()["status"] == "cancelled"


def test_what_a_retry_needs_may_be_gone(http: httpx.Client) -> None:
    created = http.post("/datasets", json=DATASET).json()
    http.post(f"/jobs/{created['job_id']}/cancel")
    http.delete(f"/datasets/{created['id']}")
    answer = http.post(f"/jobs/{created['job_id']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "dataset_gone")


def test_rate_and_estimated_end_follow_from_the_latest_progress() -> None:
    now = utc_now()
    job = Job(
        id="j",
        kind="dataset",
        status="running",
        spec={"dataset_id": "d"},
        progress_unit="images",
        attempts=1,
        version=1,
        priority=0,
    )
    job.created_at, job.progress_done, job.progress_total = now, 30, 50
    job.pace = [[now.timestamp() - 60, 10], [now.timestamp() - 30, 12], [now.timestamp(), 30]]
    progress = job_read(job).progress
    assert progress.rate_per_minute == pytest.approx(20, rel=1e-3)
    assert progress.estimated_finish_at is not None
    assert abs(progress.estimated_finish_at - now - timedelta(minutes=1)) < timedelta(seconds=1)
    for status, pace in (("paused", job.pace), ("running", job.pace[:1]), ("running", [])):
        job.status, job.pace = status, pace
        assert job_read(job).progress.rate_per_minute is None


def test_a_pause_is_no_work_and_the_pace_is_bounded(http: httpx.Client, db: Database) -> None:
    job_id = generate(http)["id"]
    for _ in range(30):
        change(db, job_id, done=1)
    http.post(f"/jobs/{job_id}/pause")
    with db.transaction() as session:
        assert len(session.get_one(Job, job_id).pace) == record.PACE_LENGTH
        assert record.pause(session, job_id)
    http.post(f"/jobs/{job_id}/resume")
    change(db, job_id)
    with db.snapshot() as session:
        assert len(session.get_one(Job, job_id).pace) == 1


def test_events_tell_what_polling_tells_and_end_with_the_job(http: httpx.Client, db: Database) -> None:
    job_id = generate(http)["id"]
    with http.stream("GET", f"/jobs/{job_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = Stream(response)
        seen = []
        for event_name, done, ends in (
            ("status", 0, False),
            ("status", 1, False),
            ("progress", 2, False),
            ("status", 1, True),
        ):
            if done:
                change(db, job_id, done=done, ends=ends)
            event = stream.next()
            assert event is not None
            assert event["event"] == event_name
            polled = http_get_beside(http, job_id)
            assert event["data"] == {name: value for name, value in polled.items() if name != "spec"}
            assert event["id"] == str(polled["version"])
            seen.append(polled["version"])
        assert stream.next() is None
    assert seen == sorted(set(seen))


def http_get_beside(http: httpx.Client, job_id: str) -> dict:
    return httpx.get(f"{http.base_url}/jobs/{job_id}", timeout=60).json()


@pytest.mark.parametrize("last", ["", "0", "garbage", "-1", "999999", "1" * 150])
def test_who_has_seen_nothing_valid_gets_the_state_at_once(http: httpx.Client, db: Database, last: str) -> None:
    job_id = generate(http)["id"]
    with http.stream("GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": last}) as response:
        event = Stream(response).next()
    assert event is not None
    assert event["data"]["version"] == 1


def test_who_reconnects_gets_only_what_is_new(http: httpx.Client, db: Database) -> None:
    job_id = generate(http)["id"]
    threading.Timer(0.2, change, (db, job_id)).start()
    with http.stream("GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": "1"}) as response:
        event = Stream(response).next()
    assert event is not None
    assert (event["event"], event["data"]["status"]) == ("status", "running")


@pytest.mark.parametrize("last", ["", "2"])
def test_a_finished_job_tells_its_end_and_closes(http: httpx.Client, last: str) -> None:
    job_id = generate(http)["id"]
    ended = http.post(f"/jobs/{job_id}/cancel").json()
    with http.stream("GET", f"/jobs/{job_id}/events", headers={"Last-Event-ID": last}) as response:
        stream = Stream(response)
        event = stream.next()
        assert event is not None
        assert event["data"] == {name: value for name, value in ended.items() if name != "spec"}
        assert stream.next() is None


def test_an_unknown_job_has_no_events(http: httpx.Client) -> None:
    answer = http.get("/jobs/nope/events")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_stream_ends_with_the_server(tmp_path: Path, database_url: str) -> None:
    with serve(make_settings(tmp_path / "data", database_url), FakeModels()) as node:
        job_id = generate(node.http)["id"]
        with (
            httpx.Client(base_url=node.http.base_url, timeout=30) as http,
            http.stream("GET", f"/jobs/{job_id}/events") as response,
        ):
            stream = Stream(response)
            assert stream.next() is not None
            node.begin_stop()
            assert stream.next() is None  # ended, not broken off: httpx would raise
