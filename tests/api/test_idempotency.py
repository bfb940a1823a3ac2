"""`Idempotency-Key`: the same request twice is one job, and another request under its key is refused."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from app.db.base import utc_now
from app.db.models import IdempotencyKey
from app.db.session import Database
from app.services.jobs.idempotency import KEPT
from testing.node import Node

GENERATE = {"prompt": "a fox", "num_inference_steps": 1}
CLASSES = [{"name": name, "prompts": [name]} for name in ("fox", "dog")]
DATASET = {"name": "fox-dog", "classes": CLASSES, "train_per_class": 1, "test_per_class": 0}


def post(http: httpx.Client, path: str, body: object, key: str, **headers: str) -> httpx.Response:
    return http.post(path, json=body, headers={"Idempotency-Key": key, **headers})


def num_jobs(http: httpx.Client) -> int:
    return len(http.get("/jobs").json()["items"])


@pytest.mark.parametrize(
    ("path", "body"),
    [("/generate", GENERATE), ("/datasets", DATASET), ("/train-jobs", {"dataset": DATASET})],
)
def test_the_same_request_again_gets_the_same_answer(http: httpx.Client, path: str, body: dict) -> None:
    first = post(http, path, body, "k-1", Prefer="respond-async")
    assert first.status_code == 202, first.text
    assert "idempotency-replayed" not in first.headers
    reordered = dict(reversed(body.items()))
    again = post(http, path, reordered, "k-1", Prefer="respond-async")
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert num_jobs(http) == 1


def test_a_replay_tells_what_was_answered_then(http: httpx.Client) -> None:
    job = post(http, "/generate", GENERATE, "k", Prefer="respond-async").json()
    http.post(f"/jobs/{job['id']}/cancel")
    assert post(http, "/generate", GENERATE, "k", Prefer="respond-async").json()["status"] == "queued"


def test_another_request_under_the_same_key_is_refused(http: httpx.Client) -> None:
    post(http, "/datasets", DATASET, "k")
    queries = ("priority=5", "dry_run=true", "dry_run=null&dry_run=null")
    others = [("/datasets", {**DATASET, "seed": 1}), ("/generate", GENERATE)]
    others += [(f"/datasets?{query}", DATASET) for query in queries]
    for path, body in others:
        answer = post(http, path, body, "k", Prefer="respond-async")
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert num_jobs(http) == 1


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\u00e9"])
def test_a_key_that_is_none_is_refused(http: httpx.Client, key: str) -> None:
    request = http.build_request(
        "POST", "/datasets", json=DATASET, headers=[(b"Idempotency-Key", key.encode("latin-1"))]
    )
    answer = http.send(request)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_idempotency_key")
    assert num_jobs(http) == 0


def test_the_longest_key_is_taken(http: httpx.Client) -> None:
    assert post(http, "/datasets", DATASET, "x" * 255).status_code == 202


def test_a_refused_request_leaves_its_key_free(http: httpx.Client) -> None:
    assert post(http, "/datasets", {**DATASET, "classes": 2 * CLASSES[:1]}, "k").status_code == 422
    assert post(http, "/datasets", DATASET, "k").status_code == 202
    assert post(http, "/datasets", DATASET, "other").status_code == 409  # the name is taken
    assert post(http, "/datasets", {**DATASET, "name": "free"}, "other").status_code == 202


def test_an_inline_answer_takes_no_key(http: httpx.Client) -> None:
    answer = post(http, "/generate", GENERATE, "k")
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_not_inline")


def test_twins_make_one_job(node: Node) -> None:
    num_twins = 8
    together = threading.Barrier(num_twins)

    def send(_: int) -> httpx.Response:
        with httpx.Client(base_url=node.http.base_url, timeout=60) as http:
            http.get("/livez")
            together.wait(60)
            return post(http, "/datasets", DATASET, "twins")

    with ThreadPoolExecutor(num_twins) as pool:
        answers = list(pool.map(send, range(num_twins)))
    assert [answer.status_code for answer in answers] == [202] * num_twins
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert num_jobs(node.http) == 1


def test_a_key_is_forgotten_after_a_day_and_taken_away_by_the_next_one(node: Node) -> None:
    db = Database(node.settings.resolved_database_url)
    post(node.http, "/generate", GENERATE, "old", Prefer="respond-async")
    post(node.http, "/generate", GENERATE, "older", Prefer="respond-async")
    with db.transaction() as session:
        for key in ("old", "older"):
            session.get_one(IdempotencyKey, key).created_at = utc_now() - KEPT - timedelta(seconds=1)
    again = post(node.http, "/generate", GENERATE, "old", Prefer="respond-async")
    assert "idempotency-replayed" not in again.headers
    assert num_jobs(node.http) == 3
    with db.snapshot() as session:
        assert session.get(IdempotencyKey, "older") is None
    db.close()
